# SPDX-License-Identifier: Apache-2.0
"""What is captured as a CUDA graph of a whole program, when, and what is not; against a double."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import chains
from tests.runtime.captures import Gpu, Stream, installed
from tests.runtime.gpu_double import CPU, gpu_of
from tests.runtime.graphed import graphed, made, some
from tests.runtime.running import Trt, runner
from trtpack_runtime import load
from trtpack_runtime.engines import inductor
from trtpack_runtime.engines._execute import EngineRunner
from trtpack_runtime.engines._graph import GraphRunner
from trtpack_runtime.errors import DeviceError
from trtpack_runtime.execution import LoadedSegment, Segments
from trtpack_runtime.module import BundleModule
from trtpack_runtime.program import Program, Segment
from trtpack_runtime.whole_graph import whole_graphs


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return installed(monkeypatch)


@pytest.fixture
def module(tmp_path: Path, gpu: Gpu) -> BundleModule:
    return graphed(load(chains.write(tmp_path / "b.tar", 2, 3)), gpu)


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


class Capturable:
    """PyTorch in the place of an engine."""

    capturable = True

    def __init__(self, run: Callable[..., list[torch.Tensor]]) -> None:
        self._run = run

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return self._run(inputs)


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
