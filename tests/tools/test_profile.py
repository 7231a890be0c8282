# SPDX-License-Identifier: Apache-2.0
"""Where the time goes: segments, layers, modules, on a clock the tests wind themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.runtime import handmade, planned
from tests.runtime.command import trtpack
from tests.runtime.trt_double import RELEASES, double
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.golden import sample_inputs
from trtpack_runtime.loading import load
from trtpack_runtime.module import BundleModule
from trtpack_tools import layer_times, profiling
from trtpack_tools.cli.profile import _modules
from trtpack_tools.layer_profiler import profiled
from trtpack_tools.origins import Origin, Origins
from trtpack_tools.profiling import LayerProfile, Profile, SegmentProfile, Times, by_module

pytestmark = pytest.mark.filterwarnings("ignore::trtpack_runtime.loading.DegradedWarning")


class TickingClock:
    """Every look at it is a second later."""

    def __init__(self) -> None:
        self.now = 0
        self.waits = 0

    def mark(self) -> int:
        self.now += 1
        return self.now

    def wait(self) -> None:
        self.waits += 1

    def elapsed_ms(self, begin: int, end: int) -> float:
        return (end - begin) * 1e3


def opened(path: Path, target: str) -> BundleModule:
    return load(path, target=target, device="cpu")


def measured(module: BundleModule, **options: Any) -> Profile:
    inputs = sample_inputs(module, "forward")
    return profiling.profile(module, "forward", inputs, clock=TickingClock(), **options)


def test_segments_and_layers(tmp_path: Path) -> None:
    module = opened(handmade.write(tmp_path / "bundle.tar"), "orin")
    found = measured(module, iterations=4, warmup=1)
    first, second = found.segments
    assert (found.iterations, found.device) == (4, "cpu")
    assert found.call.mean_ms == 5000.0  # two moments a segment, one before and one after all
    assert [(s.name, s.kind, s.times.p50_ms, s.share) for s in found.segments] == [
        ("forward_0", "reference", 1000.0, 0.5),
        ("forward_1", "reference", 1000.0, 0.5),
    ]
    assert [(layer.name, layer.times.p50_ms, layer.share) for layer in first.layers] == [
        ("clipped", 1000.0, 1.0)
    ]
    assert [layer.name for layer in second.layers] == [
        "linear (aten.linear.default)",
        "logits (aten.mul.Tensor)",
        "best (aten.argmax.default)",
        "counted (aten.add.Tensor)",
    ]
    assert [[o.module for o in layer.origins] for layer in second.layers] == [["fc"], [], [], []]
    assert [layer.share for layer in second.layers] == [0.25] * 4
    assert int(module.states["calls"]) == 0


def test_every_layer_of_a_network_in_order(tmp_path: Path) -> None:
    module = opened(planned.write_deep(tmp_path / "deep.tar"), "other")
    (segment,) = measured(module, iterations=3, warmup=0).segments
    network, _ = planned.deep()
    assert [layer.name for layer in segment.layers] == [layer.name for layer in network.layers]
    assert sum(layer.share for layer in segment.layers) == pytest.approx(1)
    assert str(segment.layers[0].origins[0]) == "blocks.0 (model.py:10)"


def test_what_runs_meanwhile_computes_the_same(tmp_path: Path) -> None:
    module = opened(handmade.write(tmp_path / "bundle.tar"), "orin")
    before = module.smoke()
    measured(module, iterations=1)
    assert before.passed
    assert module.smoke().comparisons == before.comparisons


def test_events_fill_their_segment(tmp_path: Path) -> None:
    module = opened(planned.write_deep(tmp_path / "deep.tar"), "other")
    events = measured(module, iterations=12, warmup=0).events
    calls = [event for event in events if event.lane == "calls"]
    assert [event.name for event in calls] == [f"call {i}" for i in range(10)]
    lane = [event for event in events if event.lane == "forward_0 (reference)"]
    segments = [event for event in lane if event.name == "forward_0"]
    assert len(segments) == 10
    for call, segment in zip(calls, segments, strict=True):
        assert call.start_ms < segment.start_ms
        assert segment.start_ms + segment.duration_ms < call.start_ms + call.duration_ms
    layers = [e for e in lane if e.name != "forward_0" and e.start_ms < calls[1].start_ms]
    assert len(layers) == 13
    end = layers[-1].start_ms + layers[-1].duration_ms
    assert end == pytest.approx(segments[0].start_ms + segments[0].duration_ms)
    assert layers[0].details["sources"] == ["model.py:10"]


def layer(name: str, ms: float, *modules: str) -> LayerProfile:
    origins = tuple(Origin(f"{module}/x", "cast", module, "") for module in modules)
    return LayerProfile(name, Times.of([ms]), 0.0, origins)


def profile_of(*layers: LayerProfile) -> Profile:
    segment = SegmentProfile("forward_0", "tensorrt", Times.of([10.0]), 1.0, layers)
    return Profile("forward", "cuda", 1, Times.of([10.0]), (segment,), ())


def test_time_by_module() -> None:
    found = profile_of(
        layer("a + b", 4.0, "stem.conv", "stem.act"),
        layer("copy", 1.0),
        layer("c", 2.0, "head"),
        layer("d", 2.0, "stem.conv"),
        layer("e", 1.0, ""),
    )
    rows = [(m.module, m.depth, m.ms, m.share) for m in by_module(found, 2)]
    assert rows == [
        ("", 0, 9.0, 0.9),
        ("stem", 1, 6.0, 0.6),
        ("stem.conv", 2, 4.0, 0.4),
        ("stem.act", 2, 2.0, 0.2),
        ("head", 1, 2.0, 0.2),
    ]
    assert [m.module for m in by_module(found, 1)] == ["", "stem", "head"]
    assert [m.module for m in by_module(found, 0)] == [""]
    assert by_module(profile_of(), 2) == []


def test_what_belongs_to_no_module_has_a_line() -> None:
    rows = list(_modules(by_module(profile_of(layer("a", 3.0, "stem"), layer("copy", 1.0)), 1)))
    assert rows == [
        ("(model)", "3.000 ms", " 75.0 %"),
        ("  stem", "3.000 ms", " 75.0 %"),
        ("(no module)", "1.000 ms", " 25.0 %"),
    ]
    assert len(list(_modules(by_module(profile_of(layer("a", 3.0, "stem")), 1)))) == 2


def test_a_layer_that_runs_twice_a_call_counts_twice() -> None:
    segment = SimpleNamespace(name="s", kind="tensorrt")
    readings = [[layer_times.Reading("a", 1.0), layer_times.Reading("a", 2.0)]]
    made: SegmentProfile = profiling._segment(segment, Times.of([1.0]), 1.0, readings)  # type: ignore[arg-type]  # has what is read of one
    assert [(x.name, x.times.mean_ms) for x in made.layers] == [("a", 3.0)]


class Runner:
    """An engine whose context reports what it is told to, as TensorRT does during a call."""

    def __init__(self, told: Sequence[tuple[str, float]]) -> None:
        self.contexts = [SimpleNamespace(profiler=None)]
        self._told = told

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        for name, ms in self._told:
            if self.contexts[0].profiler is not None:
                self.contexts[0].profiler.report_layer_time(name, ms)
        return list(inputs)


@pytest.mark.parametrize("release", RELEASES)
def test_layers_as_tensorrt_reports_them(release: str) -> None:
    network, _ = planned.deep()
    runner = Runner([("blocks.0/linear + blocks.0.act/relu", 0.5), ("copy", 0.25)])
    segment: Any = SimpleNamespace(name="forward_0", run=runner)
    with profiled(double(release), runner) as times:
        timer = layer_times.EngineTimer(segment, times, Origins(network))
        timer.run([])
        timer.run([])
        readings = timer.take()
    assert [(r.name, r.ms) for r in readings] == [
        ("blocks.0/linear + blocks.0.act/relu", 0.5),
        ("copy", 0.25),
    ]
    assert [o.module for o in readings[0].origins] == ["blocks.0", "blocks.0.act"]
    assert readings[1].origins == ()
    assert runner.contexts[0].profiler is None
    assert timer.take() == []


def test_golden_inputs(tmp_path: Path) -> None:
    module = opened(handmade.write(tmp_path / "bundle.tar"), "orin")
    x, scale = sample_inputs(module, "forward", 0)
    assert torch.equal(x, torch.linspace(-3, 9, 8).reshape(2, 4))
    assert scale.tolist() == [1.5]
    with pytest.raises(ConfigError, match=r"no golden sample 1, forward\(\) has 1"):
        sample_inputs(module, "forward", 1)


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    path, trace = planned.write_deep(tmp_path / "deep.tar"), tmp_path / "trace.json"
    arguments = ["--target", "other", "--iterations", "2", "--trace", trace, "--top", "3"]
    done = trtpack("profile", path, *arguments)
    assert (done.code, done.err) == (0, "")
    text = done.out.splitlines()
    assert text[0] == f"deep model  ({path}, other)"
    assert "forward() on cpu: " in done.out
    assert "forward_0  reference  " in done.out
    assert "layers (3 slowest of 13, together " in done.out
    modules = done.out.partition("\nmodules\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in modules[:3]] == ["(model)", "blocks", "0"]
    events = json.loads(trace.read_text())["traceEvents"]
    assert {e["name"] for e in events} >= {"forward_0", "blocks.0/linear", "call 1"}


@pytest.mark.slow
def test_the_command_for_programs(tmp_path: Path) -> None:
    path = planned.write_deep(tmp_path / "deep.tar")
    done = trtpack("profile", path, "--target", "other", "--iterations", "2", "--json")
    found = json.loads(done.out)
    assert (found["target"], found["degraded"], found["iterations"]) == ("other", True, 2)
    (segment,) = found["segments"]
    assert len(segment["layers"]) == 13
    assert segment["layers"][0]["origins"][0]["source"] == "model.py:10"
    assert found["modules"][0]["module"] == ""


@pytest.mark.slow
def test_a_missing_variant(tmp_path: Path) -> None:
    done = trtpack("profile", planned.write_deep(tmp_path / "deep.tar"), "--target", "nowhere")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: the bundle has no variant 'nowhere'")
