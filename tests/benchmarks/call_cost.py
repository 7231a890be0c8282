#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What Python adds to one call of an engine, by part, on a machine without a GPU.

    python tests/benchmarks/call_cost.py [CALLS]

TensorRT and CUDA are doubles whose calls cost next to nothing, tensors are the host's. So what is
left is this runtime's own: microseconds a call, the least of several rounds. What TensorRT, CUDA
and PyTorch's allocator take on a GPU comes on top; scripts/gpu_runtime_bench measures that.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from trtpack_runtime.engines import _streams
from trtpack_runtime.engines._execute import EngineRunner
from trtpack_runtime.engines._graph import GraphRunner
from trtpack_runtime.engines._log import Log

CPU, STREAM, SHAPE = torch.device("cpu"), 7, (1, 16)
ROUNDS = 60


class Cuda(_streams.Streams):
    """The caller is on a stream of their own; every answer is a constant."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(CPU)
        self.here: Callable[[], int] = iter(partial(int, -1), 0).__next__
        self.current = {-1: STREAM}.__getitem__
        self.capturing = bool

    def on(self) -> Any:
        return nullcontext()

    def of(self, handle: int) -> Any:
        return SimpleNamespace(cuda_stream=handle, synchronize=bool, wait_stream=bool)

    def for_captures(self) -> Any:
        return SimpleNamespace(cuda_stream=STREAM, synchronize=bool, wait_stream=bool)

    def graph(self) -> Any:
        return SimpleNamespace(replay=bool)

    @contextmanager
    def capture(self, graph: Any, stream: Any) -> Any:
        yield


class Engine:
    """An engine of so many inputs and one output; it computes nothing."""

    num_optimization_profiles = 1

    def __init__(self, inputs: int) -> None:
        self.names = [*(f"x{i}" for i in range(inputs)), "y"]
        self.num_io_tensors = len(self.names)
        self.get_tensor_name = self.names.__getitem__

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return SHAPE

    def create_execution_context(self) -> Any:
        return SimpleNamespace(
            execute_async_v3={STREAM: True}.get,
            set_tensor_address={}.get,
            get_tensor_shape=self.get_tensor_shape,
        )


def microseconds(call: Callable[[], object], calls: int) -> float:
    """The least that a call took, over several rounds."""
    return min(timeit.repeat(call, number=calls, repeat=ROUNDS)) / calls * 1e6


def costs(inputs: int, calls: int) -> dict[str, float]:
    """Microseconds of each part, for an engine of so many inputs."""
    engine = Engine(inputs)
    *names, output = engine.names
    made = (None, engine, Log(), names, [output], CPU)
    with mock.patch.object(_streams, "Streams", Cuda):
        run, graph, moving = EngineRunner(*made), GraphRunner(*made), GraphRunner(*made)
    given = [torch.zeros(SHAPE) for _ in names]
    others = [torch.zeros(SHAPE) for _ in names]
    into = [torch.zeros(SHAPE)]
    for tensors in (given, others, given):
        run(given)
        run.run_into(given, into)
        graph(given)
        graph.run_into(given, into)
        moving.run_into(tensors, into)
    lane = run._lanes.all[0]
    context = lane.context
    assert context is not None
    lanes, streams = run._lanes, run.streams
    execute = context.trt.execute_async_v3

    def taken() -> None:
        lanes.mine.lane.take(False)
        lane.give()
        _ = lanes.waiting

    return {
        "bare enqueue": microseconds(lambda: execute(STREAM), calls),
        "a lane for the thread": microseconds(taken, calls),
        "current device and stream": microseconds(
            lambda: (streams.here(), streams.current(-1), streams.capturing()), calls
        ),
        "inputs compared": microseconds(lambda: context.takes(given, run._held, -1), calls),
        "a new output": microseconds(
            lambda: [run._empty(*planned) for planned in context.plan.outputs], calls
        ),
        "outputs of the caller compared": microseconds(
            lambda: run.borders.check_outputs(context.plan, into), calls
        ),
        "runner": microseconds(lambda: run(given), calls),
        "runner, caller's outputs": microseconds(lambda: run.run_into(given, into), calls),
        "bare replay": microseconds(lambda: False, calls),
        "graph, caller's outputs": microseconds(lambda: graph.run_into(given, into), calls),
        "graph, new output": microseconds(lambda: graph(given), calls),
        "graph, all inputs moved": microseconds(lambda: moving.run_into(given, into), calls),
    }


def main() -> None:
    """Prints the table."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    torch.set_num_threads(1)
    columns = {inputs: costs(inputs, calls) for inputs in (1, 8)}
    print(f"{'microseconds a call':34}" + "".join(f"{n} input{'s'[: n > 1]:8}" for n in columns))
    for part in columns[1]:
        print(f"{part:34}" + "".join(f"{costs[part]:7.2f}  " for costs in columns.values()))


if __name__ == "__main__":
    main()
