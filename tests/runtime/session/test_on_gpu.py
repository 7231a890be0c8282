# SPDX-License-Identifier: Apache-2.0
"""What the doubles stand for, on a real GPU: memory, streams, graphs, and tensors of PyTorch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from trtpack_runtime.errors import DeviceError
from trtpack_runtime.session import cudart, dlpack
from trtpack_runtime.session.arrays import DeviceArray
from trtpack_runtime.session.cuda import Cuda, api
from trtpack_runtime.session.memory import Block, Pinned

pytestmark = pytest.mark.gpu
VALUES = numpy.arange(1000, dtype="f4")


@pytest.fixture(params=["binding", "library"])
def cuda(request: pytest.FixtureRequest) -> Cuda:
    """The GPU by way of the installed binding, and of the library itself."""
    found: Any = api() if request.param == "binding" else cudart.library()
    if found is None:
        pytest.skip("there is no libcudart")
    return Cuda(found, 0)


@pytest.fixture
def stream(cuda: Cuda) -> Iterator[Any]:
    made = cuda.new_stream()
    yield made
    cuda.end_stream(made)


def fetched(cuda: Cuda, address: int, stream: Any) -> numpy.ndarray:
    found = numpy.zeros_like(VALUES)
    cuda.copy_out(found.ctypes.data, address, found.nbytes, stream)
    cuda.wait(stream)
    return found


def test_copies_there_and_back(cuda: Cuda, stream: Any) -> None:
    block, pinned = Block(cuda, VALUES.nbytes), Pinned(cuda)
    pinned.reserve(2 * VALUES.nbytes)
    there = pinned.array(0, "f4", VALUES.shape)
    back = pinned.array(VALUES.nbytes, "f4", VALUES.shape)
    there[:] = VALUES
    event = cuda.new_event()
    cuda.copy_in(block.address, pinned.address, VALUES.nbytes, stream)
    cuda.copy_out(pinned.address + VALUES.nbytes, block.address, VALUES.nbytes, stream)
    cuda.record(event, stream)
    cuda.wait_event(event)
    assert cuda.happened(event)
    assert numpy.array_equal(back, VALUES)
    cuda.end_event(event)
    pinned.drop()
    block.drop()


def test_a_graph_of_copies(cuda: Cuda, stream: Any) -> None:
    one, two, zeros = Block(cuda, VALUES.nbytes), Block(cuda, VALUES.nbytes), VALUES * 0
    cuda.copy_in(two.address, zeros.ctypes.data, VALUES.nbytes, stream)
    cuda.copy_in(one.address, VALUES.ctypes.data, VALUES.nbytes, stream)

    def work() -> None:
        cuda.copy_within(two.address, one.address, VALUES.nbytes, stream)

    graph = cuda.capture(work, stream)
    assert not fetched(cuda, two.address, stream).any(), "nothing runs while it is captured"
    cuda.launch(graph, stream)
    assert numpy.array_equal(fetched(cuda, two.address, stream), VALUES)
    cuda.end_graph(graph)
    with pytest.raises(DeviceError, match="cudaErrorStreamCapture"):
        cuda.capture(lambda: cuda.wait(stream), stream)
    cuda.copy_in(one.address, VALUES.ctypes.data, VALUES.nbytes, stream)
    assert numpy.array_equal(fetched(cuda, one.address, stream), VALUES), "no error stays behind"
    one.drop()
    two.drop()


def test_times_and_memory(cuda: Cuda, stream: Any) -> None:
    before, block = cuda.free_bytes(), Block(cuda, 256 << 20)
    assert before - cuda.free_bytes() >= 256 << 20
    begin, end = cuda.new_event(timed=True), cuda.new_event(timed=True)
    cuda.record(begin, stream)
    cuda.copy_within(block.address, block.address + (128 << 20), 128 << 20, stream)
    cuda.record(end, stream)
    cuda.wait(stream)
    assert 0 < cuda.elapsed_ms(begin, end) < 1000
    for event in (begin, end):
        cuda.end_event(event)
    block.drop()
    with pytest.raises(DeviceError, match="the GPU is out of memory: cudaMalloc failed"):
        Block(cuda, 1 << 50)


def test_tensors_of_pytorch_and_back(cuda: Cuda, stream: Any) -> None:
    torch = pytest.importorskip("torch")
    given = torch.arange(1000, device="cuda", dtype=torch.float32)
    taken = dlpack.take(given + 1, int(stream))
    assert (taken.dtype, taken.shape, taken.device) == ("FLOAT", (1000,), (dlpack.CUDA, 0))
    assert numpy.array_equal(fetched(cuda, taken.address, stream), VALUES + 1)
    taken.release()
    block = Block(cuda, VALUES.nbytes)
    cuda.copy_in(block.address, VALUES.ctypes.data, VALUES.nbytes, stream)
    asked = []
    array = DeviceArray((1000,), "FLOAT", block.address, 0, block, asked.append, lambda a: None)
    cuda.wait(stream)
    tensor = torch.from_dlpack(array)
    assert tensor.is_cuda
    assert tensor.data_ptr() == block.address
    assert len(asked) == 1, "its stream is to wait"
    assert torch.equal(tensor.cpu(), torch.from_numpy(VALUES))
    block.drop()
    assert block.alive, "PyTorch holds it"
    del tensor
    gc.collect()
    assert not block.alive
