# SPDX-License-Identifier: Apache-2.0
"""The cheapest calls that PyTorch has, and what stands in where it lacks one."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from trtpack_runtime.engines import _streams
from trtpack_runtime.engines._streams import Streams

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def no_stream_is_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "device", lambda index: nullcontext())
    _streams._blocking_stream.cache_clear()
    yield
    _streams._blocking_stream.cache_clear()


@pytest.mark.parametrize("private", [True, False])
def test_a_new_tensor(private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not private:
        monkeypatch.delattr(torch._C._dynamo.guards, "_empty_strided_cpu")
    empty = Streams(torch.device("cpu")).empty
    for size, steps in (((2, 3), (3, 1)), ((), ()), ((0, 2), (2, 1))):
        made = empty(size, steps, torch.float16)
        assert (made.shape, made.stride(), made.dtype) == (size, steps, torch.float16)


def test_pytorchs_own_functions_are_taken_where_it_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: 3, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda i: 70 + i, raising=False)
    streams = Streams(CUDA)
    assert (streams.index, streams.here(), streams.current(0)) == (0, 3, 70)


def test_where_it_has_none_the_public_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_cuda_getDevice", raising=False)
    monkeypatch.delattr(torch._C, "_cuda_getCurrentRawStream", raising=False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda i: SimpleNamespace(cuda_stream=70 + i))
    streams = Streams(CUDA)
    assert (streams.here(), streams.current(0)) == (3, 70)


@pytest.mark.parametrize(("code", "handle"), [(0, 4711), (2, 0)])
def test_a_stream_beside_the_default_one_is_made_once(
    code: int, handle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def create(address: int) -> int:
        made.append(address)
        ctypes.c_void_p.from_address(address).value = 4711
        return code

    monkeypatch.setattr(torch.cuda, "cudart", lambda: SimpleNamespace(cudaStreamCreate=create))
    assert [Streams(CUDA).aside(), Streams(CUDA).aside()] == [handle, handle]
    assert len(made) == 1


def test_where_none_can_be_made_the_default_stream_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "cudart", lambda: SimpleNamespace())
    assert Streams(CUDA).aside() == 0


@pytest.fixture
def no_driver_is_kept() -> Iterator[None]:
    """What ``_memcpy`` found before is forgotten."""
    _streams._memcpy.cache_clear()
    yield
    _streams._memcpy.cache_clear()


@pytest.mark.usefixtures("no_driver_is_kept")
def test_the_drivers_copy_takes_addresses_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue = SimpleNamespace()
    driver = SimpleNamespace(cuMemcpyDtoDAsync_v2=enqueue)
    monkeypatch.setattr(ctypes, "CDLL", {"libcuda.so.1": driver}.__getitem__)
    assert Streams(CUDA).memcpy() is enqueue
    sizes = [ctypes.sizeof(kind) for kind in enqueue.argtypes]
    assert sizes == [8, 8, 8, 8], "none is cut off to 32 bits"
    assert enqueue.restype is ctypes.c_int


@pytest.mark.usefixtures("no_driver_is_kept")
@pytest.mark.parametrize("driver", [None, SimpleNamespace()])
def test_without_it_there_is_none(driver: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def library(name: str) -> object:
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert Streams(CUDA).memcpy() is None
