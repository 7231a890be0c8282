# SPDX-License-Identifier: Apache-2.0
"""Replaying an engine as a CUDA graph, against doubles of TensorRT's runtime and of CUDA graphs.

A double of a graph keeps what a context enqueued, with the addresses it had then, and does that
again in the same memory. That CUDA does the same is proved on a GPU.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch

from tests.runtime.running import Context, Engine, Stream, Trt, runner, streams
from trtpack_runtime.engines._graph import GraphRunner
from trtpack_runtime.errors import InputMismatchError


class Graph:
    """A captured graph."""

    def __init__(self, journal: list[str]) -> None:
        self.work: list[Callable[[], None]] = []
        self._journal = journal

    def replay(self) -> None:
        self._journal.append("replays")
        for work in self.work:
            work()


class Gpu:
    """What happened, and how captures are to end."""

    def __init__(self, journal: list[str]) -> None:
        self.journal = journal
        self.capturing: Graph | None = None
        self.fails: str | None = None
        """A capture raises this as CUDA does."""
        self.refuses = False
        """TensorRT answers False while a graph is captured."""

    def told(self) -> list[str]:
        """What the engine did since the last time this was asked."""
        notes = [note for note in self.journal if note in ("runs", "captured", "replays")]
        del self.journal[:]
        return notes

    @contextlib.contextmanager
    def capture(self, graph: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local", "other threads may allocate meanwhile"
        self.capturing = graph
        try:
            yield
        finally:
            self.capturing = None
        if self.fails is not None:
            raise RuntimeError(self.fails)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu(streams(monkeypatch))
    run_now = Context.execute_async_v3

    def execute(context: Context, stream: int) -> bool:
        if gpu.capturing is None:
            return run_now(context, stream)
        gpu.journal.append("captured")
        gpu.capturing.work.append(context.enqueued())
        return not gpu.refuses

    monkeypatch.setattr(Context, "execute_async_v3", execute)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(gpu.journal))
    monkeypatch.setattr(torch.cuda, "graph", gpu.capture)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    return gpu


def graphs(gpu: Gpu, declared: str = "FLOAT") -> GraphRunner:
    return GraphRunner(runner(Trt(gpu.journal), declared=declared))


def right(run: GraphRunner, batch: int = 2) -> torch.Tensor:
    """Calls with new values, answers what came back once it is right."""
    x = torch.rand(batch, 3)
    (y,) = run([x])
    assert torch.equal(y, x * 2)
    return y


def on(monkeypatch: pytest.MonkeyPatch, gpu: Gpu, name: str) -> None:
    """The caller goes on on a stream of their own."""
    stream = Stream(name, gpu.journal)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)


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


def test_other_shapes_run_plainly_and_twice_in_a_row_capture_anew(gpu: Gpu) -> None:
    run = graphs(gpu)
    for batch, does in [
        (2, ["runs"]),
        (2, ["runs", "captured", "replays"]),
        (4, ["runs"]),
        (2, ["runs"]),
        (4, ["runs"]),
        (4, ["runs", "captured", "replays"]),
        (4, ["replays"]),
    ]:
        right(run, batch)
        assert gpu.told() == does, batch


@pytest.mark.parametrize(
    ("fails", "refuses", "reason"),
    [
        ("operation not permitted\nwhen capturing", False, "operation not permitted$"),
        (None, True, "TensorRT cannot enqueue the engine while a graph is captured$"),
    ],
)
def test_a_capture_that_fails_is_told_once(
    gpu: Gpu, fails: str | None, refuses: bool, reason: str
) -> None:
    gpu.fails, gpu.refuses = fails, refuses
    run = graphs(gpu)
    right(run)
    with pytest.warns(UserWarning, match=f"runs without a CUDA graph: {reason}"):
        right(run)
    assert gpu.told() == ["runs", "runs", "captured", "runs"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in (2, 2, 3, 3):
            right(run, batch)
    assert gpu.told() == ["runs"] * 4


def test_after_a_failed_capture_shapes_are_told_again(gpu: Gpu) -> None:
    gpu.fails = "operation not permitted"
    run = graphs(gpu)
    right(run)
    del gpu.journal[:]
    with pytest.warns(UserWarning, match="without a CUDA graph"):
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


def test_a_wrong_input_is_refused(gpu: Gpu) -> None:
    run = graphs(gpu)
    for _ in range(3):
        right(run)
    with pytest.raises(InputMismatchError, match="wanted FLOAT on cpu, got HALF"):
        run([torch.rand(2, 3).half()])
    with pytest.raises(InputMismatchError, match=r"got \[5, 3\]"):
        run([torch.rand(5, 3)])
    right(run)


def test_another_stream_waits_for_the_last_one(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    run = graphs(gpu)
    on(monkeypatch, gpu, "one")
    right(run)
    right(run)
    del gpu.journal[:]
    right(run)
    assert gpu.journal == ["replays"]
    on(monkeypatch, gpu, "two")
    right(run)
    assert gpu.journal[1:] == ["two waits for one", "replays"]


def test_a_capture_waits_for_the_last_stream(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ran on another stream may still use the context's scratch memory."""
    run = graphs(gpu)
    on(monkeypatch, gpu, "one")
    right(run)
    on(monkeypatch, gpu, "two")
    del gpu.journal[:]
    right(run)
    first = gpu.journal.index("runs")
    assert gpu.journal[:first] == ["the engine waits for two", "the engine waits for one"]
    last = gpu.journal.index("replays")
    assert "two waits for the engine" in gpu.journal[first:last]


def test_the_allocator_knows_where_a_graphs_tensors_are_used(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else their memory goes to somebody else while the last replay still runs."""
    recorded: list[tuple[int, str]] = []
    monkeypatch.setattr(
        torch.Tensor,
        "record_stream",
        lambda self, stream: recorded.append((self.data_ptr(), stream.name)),
    )
    run = graphs(gpu)
    on(monkeypatch, gpu, "own")
    right(run)
    right(run)
    graph = run._graph
    assert graph is not None
    assert {(t.data_ptr(), "own") for t in (*graph.inputs, *graph.outputs)} <= set(recorded)


def test_all_else_is_the_runners(gpu: Gpu) -> None:
    run = graphs(gpu)
    for name in ("engine", "context", "contexts", "inputs", "outputs", "device"):
        assert getattr(run, name) == getattr(run.runner, name)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = run.nonsense


def test_while_the_caller_captures_the_engine_runs_plainly(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = graphs(gpu)
    with monkeypatch.context() as during:
        during.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        for _ in range(3):
            right(run)
    assert gpu.told() == ["runs"] * 3
    right(run)
    right(run)
    assert gpu.told() == ["runs", "runs", "captured", "replays"]


def test_a_graph_is_made_anew_once_the_caller_captured_one(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph is of its context as it was, which the caller's capture changes."""
    run = graphs(gpu)
    right(run)
    right(run)
    with monkeypatch.context() as during:
        during.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        right(run, 4)
    gpu.told()
    right(run)
    assert gpu.told() == ["runs", "captured", "replays"]
    right(run)
    assert gpu.told() == ["replays"]
