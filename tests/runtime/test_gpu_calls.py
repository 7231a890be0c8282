# SPDX-License-Identifier: Apache-2.0
"""Calls of a real engine on a real GPU: streams, threads, shapes, memory that stays and moves.

What the doubles cannot show: that the order of streams is CUDA's, that contexts may share memory,
and that a graph stays right whatever else its engine is called with.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from trtpack_runtime.device import facts
from trtpack_runtime.dims import dim
from trtpack_runtime.engines import LoadContext, tensorrt
from trtpack_runtime.engines._child import BuildJob, build_in_worker
from trtpack_runtime.engines._execute import EngineRunner
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_runtime.program import Segment
from trtpack_tools.recorder import Recorder

pytestmark = pytest.mark.gpu

SIDE, LAYERS, MOST = 256, 12, 64
THREADS, CALLS = 4, 200


def network() -> Network:
    """``x`` times ``w`` again and again, each time through tanh; two profiles."""
    recorder = Recorder()
    y = x = recorder.input(Tensor("x", "FLOAT", (dim("x", 0), SIDE)))
    w = recorder.input(Tensor("w", "FLOAT", (SIDE, SIDE)))
    plain = {"op0": "NONE", "op1": "NONE"}
    for i in range(LAYERS):
        (y,) = recorder.add("matrix_multiply", {"input0": y, "input1": w}, plain, name=f"m{i}")
        (y,) = recorder.add("activation", {"input": y}, {"type": "TANH"}, name=f"t{i}")
    assert y is not x
    ranges = [((1, SIDE), (8, SIDE), (MOST, SIDE)), ((1, SIDE), (1, SIDE), (4, SIDE))]
    return recorder.finish([y.name], [Profile({"x": shapes}) for shapes in ranges])


def eager(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    for _ in range(LAYERS):
        x = torch.tanh(x @ w)
    return x


Load = Callable[..., EngineRunner]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Loads the engine with options, built once."""
    if reason := tensorrt.can_build(facts()):
        pytest.skip(reason)
    made, plan = network(), tmp_path_factory.mktemp("calls") / "plan"
    build_in_worker(BuildJob("tensorrt", made, (), plan, BuildOptions(tf32=False)))

    def loaded(**options: Any) -> EngineRunner:
        segment = Segment("forward_0", "network", {}, {})
        context = LoadContext(segment, {}, torch.device("cuda", 0), made, options=options)
        runner = tensorrt.load(Path(plan), context)
        assert isinstance(runner, EngineRunner)
        return runner

    return loaded


@pytest.fixture(params=["off", "on"])
def run(load: Load, request: pytest.FixtureRequest) -> EngineRunner:
    """The engine without and with CUDA graphs."""
    return load(cuda_graphs=request.param)


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """PyTorch multiplies in float32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before
    torch.cuda.synchronize()


def inputs(batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator("cuda").manual_seed(seed)
    x = torch.randn(batch, SIDE, device="cuda", generator=generator)
    return x, torch.randn(SIDE, SIDE, device="cuda", generator=generator) / SIDE**0.5


def close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


def test_graphs_are_made_and_each_thread_has_contexts(load: Load) -> None:
    """Else the tests below would show less than they seem to."""
    run = load(cuda_graphs="on", contexts=THREADS)
    for batch in (1, 4, 9):
        x, w = inputs(batch)
        for _ in range(3):
            run([x, w])
    (lane,) = run._lanes.all
    assert len(lane.graphs.by_key.values()) == 3
    assert len(run.contexts) >= 3, "a context with a graph is told no other shapes"
    start = threading.Barrier(THREADS)

    def call() -> None:
        start.wait(30)
        run([x, w])
        start.wait(30)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(call) for _ in range(THREADS)]:
            done.result(60)
    assert len(run._lanes.all) == THREADS


@pytest.mark.parametrize("own_stream", [False, True], ids=["default stream", "own stream"])
def test_a_chain_of_calls_waits_for_itself(run: EngineRunner, own_stream: bool) -> None:
    """Each call reads what the last one and PyTorch made, none is waited for by the host."""
    x, w = inputs(8)
    stream = torch.cuda.Stream() if own_stream else torch.cuda.default_stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        got = wanted = x
        for i in range(40):
            big = torch.full((4096, 4096), float(i % 3), device="cuda")  # keeps the GPU busy
            got = run([got * 1.5 + big[:8, :SIDE], w])[0]
            wanted = eager(wanted * 1.5 + big[:8, :SIDE], w)
    stream.synchronize()
    close(got, wanted)


def test_two_engines_on_the_default_stream(load: Load) -> None:
    """The second reads what the first wrote, with nothing of PyTorch's between them."""
    first, second = load(), load()
    x, w = inputs(32)
    for _ in range(50):
        (y,) = second([*first([x, w]), w])
        close(y, eager(eager(x, w), w))


def test_memory_is_not_given_away_too_early(run: EngineRunner) -> None:
    """Inputs and outputs die as soon as they can; new tensors take their memory."""
    x, w = inputs(MOST)
    wanted = eager(x + 1, w).sum()
    for _ in range(300):
        got = run([(x + 1).clone(), w])[0].sum()
        torch.empty(MOST, SIDE, device="cuda").fill_(float("nan"))
    close(got, wanted)


def test_another_stream_waits(run: EngineRunner) -> None:
    x, w = inputs(MOST)
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    wanted, got = eager(x, w), []
    for i in range(60):
        with torch.cuda.stream(streams[i % 3]):
            got.append(run([x, w])[0])
    torch.cuda.synchronize()
    for y in got:
        close(y, wanted)


def test_shapes_come_and_go(run: EngineRunner) -> None:
    cases = {batch: inputs(batch, batch) for batch in (1, 2, 4, 5, 8, 33, MOST)}
    for i in range(20 * len(cases)):
        x, w = cases[list(cases)[(i * i) % len(cases)]]
        close(run([x, w])[0], eager(x, w))


def test_memory_that_stays_and_memory_that_moves(run: EngineRunner) -> None:
    x, w = inputs(8)
    y = torch.empty_like(x)
    for i in range(12):
        x.copy_(inputs(8, i)[0])
        run.run_into([x, w], [y])
        close(y, eager(x, w))
        moved = x.clone()
        close(run([moved, w])[0], y)
        other = torch.empty_like(y)
        run.run_into([moved, w], [other])
        close(other, y)


def test_threads_on_streams_of_their_own(run: EngineRunner) -> None:
    start = threading.Barrier(THREADS)

    def calls(seed: int) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            cases = [(x, w, eager(x, w)) for x, w in (inputs(b, seed) for b in (1, 4, 9, MOST))]
            start.wait(30)
            for i in range(CALLS):
                x, w, wanted = cases[(i // 3) % len(cases)]
                close(run([x, w])[0], wanted)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(calls, seed) for seed in range(THREADS)]:
            done.result(120)


def test_a_callers_own_graph_stays_right(run: EngineRunner) -> None:
    x, w = inputs(8)
    lane, keeper = run.lane(), threading.Event()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    with run.on(lane, keeper), torch.cuda.stream(stream):
        run([x, w])
        stream.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            (y,) = run([x, w])
        run([inputs(MOST)[0], w])  # another context of the lane, in the memory they share
        stream.synchronize()
    for seed in range(5):
        x.copy_(inputs(8, seed)[0])
        close(run([inputs(3, seed)[0], w])[0], eager(inputs(3, seed)[0], w))
        graph.replay()
        close(y, eager(x, w))
