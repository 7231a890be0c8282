# SPDX-License-Identifier: Apache-2.0
"""Outputs whose size only the data tells, against a double that asks for memory as it runs.

The double answers the positive elements of ``x``, in memory that its allocator gives it.
"""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tests.runtime.gpu_double import CPU, Gpu, gpu_of
from tests.runtime.running import Context, Engine, Trt
from trtpack_runtime.engines import LoadContext, _load
from trtpack_runtime.engines._execute import EngineRunner
from trtpack_runtime.engines._graph import GraphRunner
from trtpack_runtime.engines._load import deserialized
from trtpack_runtime.errors import BundleError, DeviceError, InputMismatchError
from trtpack_runtime.network import Profile, Tensor
from trtpack_runtime.program import Segment
from trtpack_tools.recorder import Recorder


class Picking(Context):
    """Picks; ``async_`` is how releases from 10.0 on ask for memory."""

    async_, refuses, silent = False, False, False

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self.allocator = allocator
        return name == "y" and not self.refuses

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1,) if name == "y" else self._shape

    def enqueued(self) -> Callable[[], None]:
        count = self._shape[0] * self._shape[1]
        x = (ctypes.c_float * count).from_address(self._addresses["x"])

        def work() -> None:
            picked = [value for value in x if value > 0]
            if self.silent:
                return
            asked = ("y", 0, 4 * len(picked), 256)
            if self.async_:
                memory = self.allocator.reallocate_output_async(*asked, 7)
            else:
                memory = self.allocator.reallocate_output(*asked)
            (ctypes.c_float * len(picked)).from_address(memory)[:] = picked
            self.allocator.notify_shape("y", (len(picked),))

        return work


class PickingTrt(Trt):
    """With the class that allocators derive from."""

    class IOutputAllocator:
        pass


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """The GPU; the caller is on the default stream."""
    return gpu_of(monkeypatch)


@pytest.fixture
def run(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> EngineRunner:
    """A runner of the double."""
    return picking(gpu, monkeypatch)


def picking(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> EngineRunner:
    monkeypatch.setattr(Engine, "create_execution_context", lambda engine: Picking(engine))
    trt = PickingTrt(gpu)
    told = deserialized(trt, memoryview(b"ptrt"))
    return EngineRunner(*told, ["x"], ["y"], CPU, dict.fromkeys("xy", "FLOAT"), ["y"], trt)


@pytest.mark.parametrize("async_", [False, True], ids=["8.6", "10"])
def test_as_many_elements_as_there_are(
    run: EngineRunner, async_: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Picking, "async_", async_)
    kept = []
    for x in (torch.randn(3, 3), torch.ones(4, 3), -torch.ones(1, 3), torch.randn(4, 3)):
        (y,) = run([x])
        assert torch.equal(y, x[x > 0])
        kept.append((y, x[x > 0]))
    assert all(torch.equal(y, wanted) for y, wanted in kept), "an answer is the caller's own"


def test_a_size_that_is_not_told_is_an_error(
    run: EngineRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([torch.ones(2, 3)])
    monkeypatch.setattr(Picking, "silent", True)
    with pytest.raises(DeviceError, match="output y: TensorRT did not tell its size"):
        run([torch.ones(2, 3)])


def test_an_allocator_that_is_not_taken_is_an_error(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Picking, "refuses", True)
    with pytest.raises(DeviceError, match="output y: TensorRT takes no allocator"):
        picking(gpu, monkeypatch)


def test_no_memory_left_is_told_to_tensorrt(
    run: EngineRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([torch.ones(2, 3)])

    def none(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch, "empty", none)
    assert run.contexts[0].allocator.reallocate_output("y", 0, 8, 256) == 0


def test_threads_have_their_own_sizes(run: EngineRunner) -> None:
    start = threading.Barrier(3)

    def many(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        start.wait(20)
        for _ in range(50):
            x = torch.randn(1 + seed, 3, generator=generator)
            (y,) = run([x])
            assert torch.equal(y, x[x > 0])

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(many, seed) for seed in range(3)]:
            done.result(20)
    assert len(run.contexts) == 3


def test_no_memory_can_be_given_for_a_size_nobody_knows(run: EngineRunner) -> None:
    assert run.output_shapes([(2, 3)]) == [None]
    with pytest.raises(InputMismatchError, match="output y: its size depends on the data"):
        run.run_into([torch.ones(2, 3)], [torch.ones(6)])


@pytest.mark.parametrize("by_data", [False, True])
def test_an_engine_sized_by_data_runs_without_a_cuda_graph(
    by_data: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    kind = ("non_zero", {}) if by_data else ("unary", {"op": "ABS"})
    (y,) = recorder.add(kind[0], {"input": x}, kind[1], name="y")
    network = recorder.finish([y.name], [Profile({})])
    monkeypatch.setattr(_load, "imported", lambda module: PickingTrt(Gpu()))
    monkeypatch.setattr(Engine, "create_execution_context", lambda engine: Picking(engine))
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    segment, cuda = Segment("forward_0", "network", {}, {}), torch.device("cuda")
    context = LoadContext(segment, {}, cuda, network, options={"cuda_graphs": True})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        runner = _load.load_engine("tensorrt", memoryview(b"ptrt"), context)
    assert isinstance(runner, GraphRunner) != by_data
    said = "segment forward_0 runs without a CUDA graph: sizes within it depend on data"
    assert [str(w.message).startswith(said) for w in told] == [True] * by_data


def test_shapes_tensorrt_calls_invalid_are_the_networks(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_one_shape(engine: Engine) -> Picking:
        context = Picking(engine)
        context.set_input_shape("x", (1, 3))
        return context

    def invalid(engine: Engine, name: str) -> Any:
        raise ValueError("__len__() should return >= 0")

    monkeypatch.setattr(Engine, "create_execution_context", of_one_shape)
    monkeypatch.setattr(Engine, "get_tensor_shape", invalid)
    trt = PickingTrt(gpu)
    told = (*deserialized(trt, memoryview(b"ptrt")), ["x"], ["y"], CPU, {}, ["y"], trt)
    x = torch.randn(1, 3)
    (y,) = EngineRunner(*told, {"x": (1, 3)})([x])
    assert torch.equal(y, x[x > 0])
    with pytest.raises(BundleError, match="no shape of the engine's input x"):
        EngineRunner(*told)
