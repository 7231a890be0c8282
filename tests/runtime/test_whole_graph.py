# SPDX-License-Identifier: Apache-2.0
"""Replaying whole programs as CUDA graphs, against a double. That CUDA does the same is proved on a
GPU."""

from __future__ import annotations

import contextlib
import gc
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import chains
from tests.runtime.captures import Gpu, Stream, installed
from tests.runtime.gpu_double import CPU, gpu_of
from tests.runtime.running import Trt, runner
from trtpack_runtime import load
from trtpack_runtime.engines import inductor
from trtpack_runtime.engines._execute import EngineRunner
from trtpack_runtime.engines._graph import GraphRunner
from trtpack_runtime.errors import DeviceError
from trtpack_runtime.execution import LoadedSegment, Segments
from trtpack_runtime.module import BundleModule
from trtpack_runtime.program import Program, Segment
from trtpack_runtime.whole_graph import WholeGraphs, whole_graphs


class Runner:
    """A segment that may be captured, an engine with lanes."""

    capturable = True
    refits = 0

    def __init__(self, segment: LoadedSegment, gpu: Gpu) -> None:
        self._segment, self._gpu = segment, gpu
        self._is_apart, self.lanes = False, 0
        self.keepers: weakref.WeakSet[Any] = weakref.WeakSet()

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if not self._is_apart:
            self._gpu.notes.append("runs")
        return self._segment.run(inputs)

    def lane(self) -> str:
        """A context of its own."""
        self.lanes += 1
        return f"a lane of {self._segment.name}"

    @contextlib.contextmanager
    def on(self, lane: str, keeper: Any) -> Iterator[None]:
        """Calls run on the lane."""
        assert lane == f"a lane of {self._segment.name}"
        self._is_apart = True
        self.keepers.add(keeper)
        try:
            yield
        finally:
            self._is_apart = False


class Capturable:
    """PyTorch in the place of an engine."""

    capturable = True

    def __init__(self, run: Callable[..., list[torch.Tensor]]) -> None:
        self._run = run

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return self._run(inputs)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return installed(monkeypatch)


def graphed(module: BundleModule, gpu: Gpu, **options: Any) -> BundleModule:
    """The module with graphs as on a GPU."""
    segments = module._loaded.segments.watched(lambda segment: Runner(segment, gpu))
    module._loaded = module._compiled(segments)
    for name, call in module._loaded.calls.items():
        call.graphs = made(module, segments, name, **options)
    return module


def made(
    module: BundleModule, segments: Segments, name: str = "forward", **options: Any
) -> WholeGraphs | None:
    given = {"loud": False, "size": 8, **options}
    program, stored = module._programs[name], module._loaded.stored
    return whole_graphs(program, segments, stored, torch.device("cpu"), **given)


@pytest.fixture
def module(tmp_path: Path, gpu: Gpu) -> BundleModule:
    return graphed(load(chains.write(tmp_path / "b.tar", 2, 3)), gpu)


@pytest.fixture
def stateful(tmp_path: Path, gpu: Gpu) -> BundleModule:
    path = chains.write(tmp_path / "s.tar", 1, 2, state=True, methods=("forward", "decode"))
    return graphed(load(path), gpu)


def some(rows: int = 2, inputs: int = 2) -> list[torch.Tensor]:
    return [torch.randn(rows, 4) for _ in range(inputs)]


def test_the_second_call_with_equal_shapes_is_captured_and_later_ones_replay(
    module: BundleModule, gpu: Gpu
) -> None:
    for want in (["runs"] * 3, ["captured", "replays"], ["replays"], ["replays"]):
        given = some()
        answer = module(*given)
        torch.testing.assert_close(answer, chains.doubled(*given, times=3))
        assert gpu.told() == want


def test_answers_are_the_callers_own(module: BundleModule) -> None:
    given = [some() for _ in range(4)]
    answers = [module(*x) for x in given]
    for answer, x in zip(answers, given, strict=True):
        torch.testing.assert_close(answer, chains.doubled(*x, times=3))


def test_inputs_that_stay_are_read_where_they_are(module: BundleModule, gpu: Gpu) -> None:
    kept, moving = some()
    for _ in range(4):
        moving = torch.randn(2, 4)
        module(kept, moving)
    graphs = module._loaded.calls["forward"].graphs
    assert graphs is not None
    (seen,) = graphs._seen.values()
    assert seen.graph is not None
    assert seen.graph.fixed == (True, False)
    kept += 1
    torch.testing.assert_close(module(kept, moving), chains.doubled(kept, moving, times=3))


@pytest.mark.slow
def test_memory_that_only_has_an_old_address_is_not_taken_for_fixed(module: BundleModule) -> None:
    for _ in range(3):
        given = some()
        module(*given)
        del given
        gc.collect()
    graphs = module._loaded.calls["forward"].graphs
    assert graphs is not None
    (seen,) = graphs._seen.values()
    assert seen.graph is not None
    assert seen.graph.fixed == (False, False)


def test_what_was_fixed_and_moves_is_captured_anew_and_the_old_memory_left_alone(
    module: BundleModule, gpu: Gpu
) -> None:
    a, b = some()
    for _ in range(3):
        module(a, b)
    gpu.told()
    before = a.clone()
    for want in (["captured", "replays"], ["replays"]):
        other = torch.randn(2, 4)
        torch.testing.assert_close(module(other, b), chains.doubled(other, b, times=3))
        assert gpu.told() == want
    assert torch.equal(a, before)


def test_views_in_another_order_are_copied(module: BundleModule) -> None:
    a, b = torch.randn(4, 4), torch.randn(4, 4)
    for x in (a, a, a.t(), a):
        torch.testing.assert_close(module(x, b), chains.doubled(x, b, times=3))


def test_several_shapes_are_kept_and_the_oldest_forgotten(tmp_path: Path, gpu: Gpu) -> None:
    module = graphed(load(chains.write(tmp_path / "b.tar", 1, 2)), gpu, size=2)
    for rows in (1, 1, 2, 2):
        module(torch.randn(rows, 4))
    gpu.told()
    for rows in (1, 2, 1):
        module(torch.randn(rows, 4))
    assert gpu.told() == ["replays"] * 3
    module(torch.randn(3, 4))
    module(torch.randn(2, 4))
    assert gpu.told() == ["runs"] * 4
    assert "the host waits for the caller" in gpu.waits


def test_given_outputs_that_stay_are_written_in_place(module: BundleModule, gpu: Gpu) -> None:
    given, out = some(), torch.empty(2, 4)
    for _ in range(3):
        assert module.run("forward", given, out=[out])[0] is out
        torch.testing.assert_close(out, chains.doubled(*given, times=3))
        given[0] += 1
    graphs = module._loaded.calls["forward"].graphs
    assert graphs is not None
    (seen,) = graphs._seen.values()
    assert seen.graph is not None
    assert seen.graph.writes_out
    gpu.told()
    kept, other = out.clone(), torch.empty(2, 4)
    for want in (["captured", "replays"], ["replays"], ["replays"]):
        module.run("forward", given, out=[other])
        torch.testing.assert_close(other, chains.doubled(*given, times=3))
        assert gpu.told() == want
        given[1] -= 1
    assert torch.equal(out, kept)
    torch.testing.assert_close(module(*given), chains.doubled(*given, times=3))


def test_reused_outputs_are_the_graphs_own(module: BundleModule) -> None:
    call = module._loaded.calls["forward"]
    call.reuses = True
    given = some()
    answers = [module(*given) for _ in range(4)]
    assert answers[2] is answers[3]
    torch.testing.assert_close(answers[3], chains.doubled(*given, times=3))


def test_state_is_updated_within_the_graph(stateful: BundleModule, gpu: Gpu) -> None:
    want = torch.zeros(2, 4)
    place = stateful.states["total"]
    for number in range(5):
        x = torch.randn(2, 4)
        want = chains.doubled(x, want, times=2)
        torch.testing.assert_close(stateful(x), want)
        torch.testing.assert_close(stateful.states["total"], want)
        assert gpu.told() == (["runs"] * 2, ["captured", "replays"], ["replays"])[min(number, 2)]
    assert stateful.states["total"] is place
    stateful.reset()
    assert not place.any()
    x = torch.randn(2, 4)
    torch.testing.assert_close(stateful(x), chains.doubled(x, times=2))


def test_two_methods_in_graphs_share_the_state(stateful: BundleModule) -> None:
    want = torch.zeros(2, 4)
    for number in range(8):
        x = torch.randn(2, 4)
        want = chains.doubled(x, want, times=2)
        method = ("forward", "decode")[number % 2]
        torch.testing.assert_close(stateful.method(method)(x), want)


def test_state_in_new_memory_is_captured_anew(stateful: BundleModule, gpu: Gpu) -> None:
    x = torch.randn(2, 4)
    for _ in range(3):
        stateful(x)
    stateful._state.replace("total", torch.ones(2, 4))
    gpu.told()
    torch.testing.assert_close(stateful(x), chains.doubled(x, torch.ones(2, 4), times=2))
    assert gpu.told() == ["captured", "replays"]


def test_a_capture_that_fails_leaves_the_program_without_a_graph(tmp_path: Path, gpu: Gpu) -> None:
    module = graphed(load(chains.write(tmp_path / "b.tar", 1, 2)), gpu, loud=True)
    gpu.fails = "operation not permitted when stream is capturing"
    x = torch.randn(2, 4)
    module(x)
    torch.testing.assert_close(module(x), 4 * x)
    torch.testing.assert_close(module(x), 4 * x)
    with pytest.warns(UserWarning, match="without one CUDA graph for all of it: operation not"):
        torch.testing.assert_close(module(x), 4 * x)
    gpu.fails = None
    module(x)
    assert gpu.told() == ["runs"] * 10


def test_a_capture_that_another_thread_disturbed_is_tried_again(
    module: BundleModule, gpu: Gpu
) -> None:
    given = some()
    gpu.fails = "operation not permitted when stream is capturing"
    for _ in range(3):
        module(*given)
    gpu.fails = None
    gpu.told()
    module(*given)
    assert gpu.told() == ["captured", "replays"]


def test_a_failed_capture_leaves_the_state_alone(stateful: BundleModule, gpu: Gpu) -> None:
    gpu.fails = "no"
    want = torch.zeros(2, 4)
    for _ in range(3):
        x = torch.randn(2, 4)
        want = chains.doubled(x, want, times=2)
        torch.testing.assert_close(stateful(x), want)


def test_a_segment_that_cannot_be_captured_is_named_where_graphs_are_asked_for(
    tmp_path: Path, gpu: Gpu
) -> None:
    module = load(chains.write(tmp_path / "b.tar"))
    segments = module._loaded.segments
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(module, segments) is None
    with pytest.warns(UserWarning, match="segment forward_0 cannot be captured"):
        assert made(module, segments, loud=True) is None


def test_within_anothers_capture_it_runs_as_ever(module: BundleModule, gpu: Gpu) -> None:
    given = some()
    for _ in range(2):
        module(*given)
    gpu.told()
    gpu.is_capturing = True
    module(*given)
    assert gpu.told() == ["runs"] * 3


def test_another_stream_waits_for_the_last_one(module: BundleModule, gpu: Gpu) -> None:
    given = some()
    for _ in range(3):
        module(*given)
    del gpu.waits[:]
    gpu.stream = Stream(gpu, "another", 9)
    module(*given)
    assert gpu.waits == ["another waits for the caller"]


def test_a_second_thread_runs_without_a_graph_meanwhile(module: BundleModule, gpu: Gpu) -> None:
    given = some()
    for _ in range(2):
        module(*given)
    graphs = module._loaded.calls["forward"].graphs
    assert graphs is not None
    gpu.told()
    answers: list[torch.Tensor] = []
    with graphs._lock:
        thread = threading.Thread(target=lambda: answers.append(module(*given)))
        thread.start()
        thread.join()
    assert gpu.told() == ["runs"] * 3
    torch.testing.assert_close(answers[0], chains.doubled(*given, times=3))


def test_what_inference_mode_captured_is_of_use_outside_of_it(module: BundleModule) -> None:
    given = some()
    with torch.inference_mode():
        for _ in range(2):
            module(*given)
    other = some()
    torch.testing.assert_close(module(*other), chains.doubled(*other, times=3))


def test_outputs_given_in_inference_mode_are_written_in_place(module: BundleModule) -> None:
    with torch.inference_mode():
        given, out = some(), torch.empty(2, 4)
        for _ in range(3):
            module.run("forward", given, out=[out])
            torch.testing.assert_close(out, chains.doubled(*given, times=3))
            given[0] += 1
    graphs = module._loaded.calls["forward"].graphs
    assert graphs is not None
    assert [seen.graph.writes_out for seen in graphs._seen.values() if seen.graph] == [True]


def test_state_of_a_module_loaded_in_inference_mode_is_captured(tmp_path: Path, gpu: Gpu) -> None:
    with torch.inference_mode():
        module = graphed(load(chains.write(tmp_path / "s.tar", 1, 2, state=True)), gpu)
    want = torch.zeros(2, 4)
    for number in range(4):
        x = torch.randn(2, 4)
        want = chains.doubled(x, want, times=2)
        with torch.inference_mode(number % 2 == 0):
            torch.testing.assert_close(module(x), want)
    assert gpu.told()[-1] == "replays"


def test_twins_have_graphs_of_their_own(tmp_path: Path, gpu: Gpu) -> None:
    module = graphed(load(chains.write(tmp_path / "b.tar", 1, 2)), gpu)
    twin = module.twin()
    assert twin._loaded.calls["forward"].graphs is not module._loaded.calls["forward"].graphs


def test_a_graph_keeps_the_contexts_it_was_captured_from_as_long_as_it_lives(
    module: BundleModule, gpu: Gpu
) -> None:
    runners: list[Any] = [segment.run for segment in module.segments()]
    for rows in (1, 1, 2, 2, 1):
        module(*some(rows))
    assert [len(runner.keepers) for runner in runners] == [2, 2, 2]
    assert [runner.lanes for runner in runners] == [1, 1, 1]
    graphs = module._loaded.calls["forward"].graphs
    assert graphs is not None
    graphs._seen.popitem()
    assert [len(runner.keepers) for runner in runners] == [1, 1, 1]


def test_other_weights_are_captured_anew(module: BundleModule, gpu: Gpu) -> None:
    given = some()
    for _ in range(3):
        module(*given)
    gpu.told()
    runner: Any = module.segments()[0].run
    runner.refits = 1
    for want in (["captured", "replays"], ["replays"]):
        module(*given)
        assert gpu.told() == want


def test_without_memory_for_more_contexts_it_runs_on(module: BundleModule, gpu: Gpu) -> None:
    def full() -> str:
        raise DeviceError("TensorRT has no room", hint="free some memory")

    runner: Any = module.segments()[1].run
    runner.lane = full
    for _ in range(5):
        given = some()
        torch.testing.assert_close(module(*given), chains.doubled(*given, times=3))
    assert gpu.told() == ["runs"] * 15


def test_an_engine_alone_is_left_to_its_own_graphs(tmp_path: Path, gpu: Gpu) -> None:
    module = graphed(load(chains.write(tmp_path / "b.tar")), gpu)
    assert module._loaded.calls["forward"].graphs is None


class Library:
    """Stands for a segment that AOTInductor compiled."""

    def run(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].cumsum(1),)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_engines_and_pytorch_are_captured_together(
    compiled: bool, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    engines = gpu.engines = gpu_of(monkeypatch)
    engines.caller_on("the caller's own stream")
    first, last = (runner(Trt(engines), kind=kind) for kind in (EngineRunner, GraphRunner))
    aten: Any = Capturable(lambda inputs: [inputs[0].cumsum(1)])
    if compiled:
        aten = inductor._Runner(Library(), {}, torch.device("cuda", 0))
    loaded = (
        LoadedSegment("0", "tensorrt", ("x",), ("a",), first, ("FLOAT",)),
        LoadedSegment("1", "inductor" if compiled else "reference", ("a",), ("b",), aten),
        LoadedSegment("2", "tensorrt", ("b",), ("y",), last, ("FLOAT",)),
    )
    program = Program(
        "forward", ("x",), ("y",), tuple(Segment(s.name, "aten", {}, {}) for s in loaded)
    )
    segments = Segments({"forward": loaded})
    graphs = whole_graphs(program, segments, {}, CPU, loud=True, size=2)
    assert graphs is not None
    plan = segments.plan(program, {})

    def call(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found = graphs.run([x], (), None, lend=False)
            return (found or plan.outputs(plan.run(plan.values([x]))))[0]

    def right(rows: int) -> None:
        x = torch.rand(rows, 3)
        torch.testing.assert_close(call(x), 2 * (2 * x).cumsum(1))

    for rows in (2, 2, 4, 4, 2, 1, 4, 2, 3, 3, 2):
        right(rows)
    engines.told()
    gpu.told()
    right(3)
    assert (engines.told(), gpu.told()) == ([], ["replays"])
    plan.run(plan.values([torch.rand(2, 3)]))  # other shapes, on contexts of their own
    right(3)
    assert gpu.told() == ["replays"]
