# SPDX-License-Identifier: Apache-2.0
"""Replaying an engine as a CUDA graph, against doubles of TensorRT's runtime and of CUDA graphs.

A double of a graph keeps what a context enqueued, with the addresses it had then, and does that
again in the same memory. That CUDA does the same is proved on a GPU.
"""

from __future__ import annotations

import gc
import re
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.runtime.gpu_double import Gpu, gpu_of
from tests.runtime.replays import graphs, right
from tests.runtime.running import Engine, Trt, runner
from trtpack_runtime.engines import _execute
from trtpack_runtime.engines._graph import GraphRunner
from trtpack_runtime.engines._range_check import Narrowing
from trtpack_runtime.errors import InputMismatchError


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """The GPU; the caller is on the default stream."""
    return gpu_of(monkeypatch)


def test_run_then_captured_then_replayed(gpu: Gpu) -> None:
    run = graphs(gpu)
    right(run)
    assert gpu.told() == ["runs"]
    right(run)
    assert gpu.told() == ["runs", "captured", "replays"], "run once before a capture"
    for _ in range(3):
        right(run)
        assert gpu.told() == ["replays"]


def test_outputs_are_the_callers_own(gpu: Gpu) -> None:
    run = graphs(gpu)
    answers = [right(run) for _ in range(4)]
    kept = [answer.clone() for answer in answers]
    right(run)
    assert all(torch.equal(a, b) for a, b in zip(answers, kept, strict=True))
    answers[-1].zero_()
    right(run)


def test_inputs_are_not_written_to(gpu: Gpu) -> None:
    run = graphs(gpu)
    given = [torch.rand(2, 3) for _ in range(4)]
    before = [x.clone() for x in given]
    for x in given:
        run([x])
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


def test_an_input_that_is_not_contiguous(gpu: Gpu) -> None:
    run = graphs(gpu)
    for _ in range(3):
        x = torch.rand(3, 2).t()
        (y,) = run([x])
        assert torch.equal(y, x * 2)
    assert gpu.told()[-1] == "replays"


def test_every_shape_that_comes_again_has_a_graph(gpu: Gpu) -> None:
    run = graphs(gpu)
    captures = ["runs", "captured", "replays"]
    for batch, does in [
        *((2, ["runs"]), (4, ["runs"]), (2, captures), (4, captures)),
        *((2, ["replays"]), (4, ["replays"]), (1, ["runs"]), (2, ["replays"])),
    ]:
        right(run, batch)
        assert gpu.told() == does, batch


def test_a_shape_in_place_of_another_comes_twice_in_a_row(gpu: Gpu) -> None:
    """Else shapes that come and go would only push each other out."""
    run = graphs(gpu, graphs=1)
    captures = ["runs", "captured", "replays"]
    for batch, does in [
        *((2, ["runs"]), (2, captures), (4, ["runs"]), (2, ["replays"]), (4, ["runs"])),
        *((1, ["runs"]), (4, ["runs"]), (4, captures), (2, ["runs"]), (4, ["replays"])),
    ]:
        right(run, batch)
        assert gpu.told() == does, batch


def test_a_context_with_a_graph_is_told_no_other_shapes(gpu: Gpu) -> None:
    run = graphs(gpu)
    for _ in range(2):
        right(run, 2)
    first = run.context
    right(run, 4)
    assert len(run.contexts) == 2
    assert first._shape == (2, 3)
    right(run, 2)
    assert gpu.told()[-1] == "replays"
    assert run.contexts[1].device_memory_given is not None, "contexts of a lane share memory"


def test_a_graph_that_has_to_go_gives_its_context_back(gpu: Gpu) -> None:
    run = graphs(gpu, graphs=1)
    for batch in (2, 2, 4, 4, 1, 1, 2, 2, 4, 4):
        right(run, batch)
    assert len(run.contexts) == 2
    assert "the host waits for the caller" in gpu.journal, "a replay may still run"


def test_a_release_with_one_context_for_a_profile_drops_its_graphs(gpu: Gpu) -> None:
    trt = Trt(gpu)
    run = runner(trt, kind=GraphRunner)
    right(run)
    right(run)
    trt.engine.has_room = False
    right(run, 4)
    assert gpu.told()[-1] == "runs"
    right(run)
    assert gpu.told() == ["runs", "captured", "replays"]
    assert len(run.contexts) == 1


@pytest.mark.parametrize(
    ("fails", "refuses", "reason"),
    [
        ("operation not permitted\nwhen capturing", False, "operation not permitted$"),
        (None, True, "TensorRT cannot enqueue the engine while a graph is captured$"),
    ],
)
@pytest.mark.parametrize("mode", ["on", "auto"])
def test_a_capture_that_fails_is_told_once_where_graphs_are_wanted(
    gpu: Gpu, fails: str | None, refuses: bool, reason: str, mode: str
) -> None:
    trt = Trt(gpu)
    run = runner(trt, kind=GraphRunner, mode=mode)
    gpu.fails, trt.engine.refuses_capture = fails, refuses
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for batch in (2, 2, 2, 3, 3, 3):
            right(run, batch)
    said = [str(warning.message) for warning in told]
    assert len(said) == (mode == "on")
    assert all(re.search(f"runs without a CUDA graph: {reason}", text) for text in said)
    tries = ["runs", "captured", "runs"]
    assert gpu.told() == ["runs", *tries * 2, "runs", *tries, "runs"], "then it is given up"


def test_a_capture_that_failed_once_is_tried_again(gpu: Gpu) -> None:
    run = graphs(gpu)
    right(run)
    gpu.fails = "somebody waited for the device"
    right(run)
    gpu.fails = None
    gpu.told()
    right(run)
    assert gpu.told() == ["runs", "captured", "replays"]


def test_after_a_failed_capture_shapes_are_told_again(gpu: Gpu) -> None:
    gpu.fails = "operation not permitted"
    run = graphs(gpu)
    right(run)
    del gpu.journal[:]
    right(run)
    assert "0: 2" in gpu.journal[gpu.journal.index("captured") :]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of TensorRT 8, which has no 64-bit integers."""
    monkeypatch.setattr(Engine, "dtype", "INT32")


@pytest.mark.usefixtures("narrow")
def test_64_bit_integers_come_and_go_as_themselves(gpu: Gpu) -> None:
    run = graphs(gpu, declared="INT64")
    for start in (0, -7, 3 << 28):
        x = torch.arange(start, start + 3)[None]
        (y,) = run([x])
        assert torch.equal(y, x * 2)
        assert y.dtype == torch.int64
    assert gpu.told()[-1] == "replays"


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("before", [0, 1, 2])
def test_integers_beyond_32_bits_are_refused(gpu: Gpu, before: int) -> None:
    run = graphs(gpu, declared="INT64")
    small = torch.tensor([[1, 2, 3]])
    for _ in range(before):
        run([small])
    with pytest.raises(InputMismatchError, match="input x: has integers beyond 32 bits"):
        run([torch.tensor([[1, 1 << 31, 3]])])
    (y,) = run([small])
    assert torch.equal(y, small * 2)


def test_several_inputs_are_narrowed_at_once_and_the_guilty_one_is_named(gpu: Gpu) -> None:
    given = {0: torch.arange(6).view(2, 3), 2: torch.tensor(-5), 3: torch.empty(0, 4).long()}
    names = {0: "ids", 2: "length", 3: "none"}
    narrowing = Narrowing(gpu, given)
    for i, tensor in given.items():
        assert torch.equal(narrowing.held[i], tensor.int())
        assert narrowing.held[i].dtype == torch.int32
    starts = [tensor.storage_offset() for tensor in narrowing.held.values()]
    assert all(start * 4 % 256 == 0 for start in starts)
    narrowing.places[2].fill_(1 << 40)
    narrowing.begin()
    with pytest.raises(InputMismatchError, match="input length: has integers beyond 32 bits"):
        narrowing.wait(names)
    narrowing.places[2].fill_(9)
    narrowing.begin()
    narrowing.wait(names)
    assert narrowing.held[2].item() == 9


def test_a_wrong_input_is_refused(gpu: Gpu) -> None:
    run = graphs(gpu)
    for _ in range(3):
        right(run)
    with pytest.raises(InputMismatchError, match="wanted FLOAT on cpu, got HALF"):
        run([torch.rand(2, 3).half()])
    with pytest.raises(InputMismatchError, match=r"got \[5, 3\]"):
        run([torch.rand(5, 3)])
    right(run)


def test_another_stream_waits_for_the_last_one(gpu: Gpu) -> None:
    run = graphs(gpu)
    gpu.caller_on("one")
    right(run)
    right(run)
    del gpu.journal[:]
    right(run)
    assert gpu.journal == ["replays"]
    gpu.caller_on("two")
    right(run)
    assert gpu.journal[1:] == ["two waits for one", "replays"]


def test_a_capture_waits_for_the_last_stream(gpu: Gpu) -> None:
    """What ran on another stream may still use the context's memory."""
    run = graphs(gpu)
    gpu.caller_on("one")
    right(run)
    gpu.caller_on("two")
    del gpu.journal[:]
    right(run)
    first = gpu.journal.index("runs")
    assert gpu.journal[:first] == ["two waits for one", "the capture waits for two"]
    last = gpu.journal.index("replays")
    assert "two waits for the capture" in gpu.journal[first:last]


def test_the_allocator_knows_where_a_graphs_tensors_are_used(gpu: Gpu) -> None:
    """Else their memory goes to somebody else while the last replay still runs."""
    run = graphs(gpu)
    kept = [torch.rand(2, 3) for _ in range(2)]
    for x in kept:
        run([x])
    gpu.caller_on("another")
    run([torch.rand(2, 3)])
    (graph,) = run._lanes.all[0].graphs.by_key.values()
    wanted = {(t.data_ptr(), "another") for t in (*graph.places, *graph.results)}
    assert len(wanted) == 2
    assert wanted <= set(gpu.recorded)


# somebody else captures, or exchanges the weights


def test_while_the_caller_captures_the_engine_runs_plainly(gpu: Gpu) -> None:
    run = graphs(gpu)
    gpu.caller_on("capturing")
    gpu.under_capture = True
    for _ in range(3):
        right(run)
    assert gpu.told() == ["runs"] * 3
    gpu.under_capture = False
    right(run)
    right(run)
    assert gpu.told() == ["runs", "runs", "captured", "replays"]


def test_a_graph_stays_right_when_the_caller_captured_one(gpu: Gpu) -> None:
    run = graphs(gpu)
    right(run)
    right(run)
    gpu.caller_on("capturing")
    gpu.under_capture = True
    right(run, 4)
    gpu.under_capture = False
    gpu.told()
    right(run)
    assert gpu.told() == ["replays"]


def test_on_a_lane_apart_no_graph_is_made(gpu: Gpu) -> None:
    run = graphs(gpu)
    lane, keeper = run.lane(), Keeper()
    with run.on(lane, keeper):
        for _ in range(3):
            right(run)
        gpu.caller_on("capturing")
        gpu.under_capture = True
        right(run)
        gpu.under_capture = False
    assert gpu.told() == ["runs"] * 4
    assert list(lane.contexts[0].keepers) == [keeper]
    right(run)
    right(run)
    assert gpu.told() == ["runs", "runs", "captured", "replays"]


class Keeper:
    """Whatever keeps a graph."""


def test_other_weights_are_captured_anew(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(_execute, "refit", lambda trt, engine, log, weights: given.append(weights))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    run = graphs(gpu)
    right(run)
    right(run)
    gpu.told()
    run.refit({"w": 1})
    assert given == [{"w": 1}]
    assert run.refits == 1
    right(run)
    assert gpu.told() == ["runs", "captured", "replays"]


def test_threads_have_graphs_of_their_own(gpu: Gpu) -> None:
    run = graphs(gpu)
    right(run)
    right(run)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            pool.submit(right, run).result()
    assert gpu.told() == [*["runs", "runs", "captured", "replays"] * 2, "replays"]
    assert len(run.contexts) == 2


@pytest.mark.parametrize("batches", [(), (2,), (2, 2, 4, 4)])
def test_a_runner_and_its_memory_go_at_once(gpu: Gpu, batches: tuple[int, ...]) -> None:
    """Not only when Python looks for what refers to itself."""
    gc.disable()
    try:
        trt = Trt(gpu)
        run = runner(trt, kind=GraphRunner)
        for batch in batches:
            right(run, batch)
        kept = [weakref.ref(run), *map(weakref.ref, run.contexts)]
        del run
        trt.engine.made.clear()
        assert [ref() for ref in kept] == [None] * len(kept)
    finally:
        gc.enable()
