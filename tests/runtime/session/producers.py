# SPDX-License-Identifier: Apache-2.0
"""A library of somebody else's whose arrays lie on the double's GPU."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy

from tests.runtime.session.cuda_double import CudaDouble
from trtpack_runtime.session import dlpack

TYPES = {"<f4": "FLOAT", "<i8": "INT64", "<i4": "INT32", "<f8": "DOUBLE", "<u2": "BF16"}


class OnGpu:
    """An array on the GPU, given by DLPack; ``held`` is how many capsules are not given back."""

    def __init__(self, cuda: CudaDouble, value: Any, device: int = 0) -> None:
        self._cuda, self.device, self.shape = cuda, device, value.shape
        self._type = TYPES[value.dtype.str]
        self.address = cuda.device_buffer(numpy.ascontiguousarray(value).tobytes())
        self.held, self.streams = 0, list[Any]()

    def write(self, value: Any) -> None:
        """Other contents."""
        data = numpy.ascontiguousarray(value).tobytes()
        ctypes.memmove(self.address, data, len(data))

    def free(self) -> None:
        """Gives its memory back, which nobody may hold any more."""
        assert self.held == 0
        self._cuda.cudaFree(self.address)

    def __dlpack__(self, stream: int | None = None) -> Any:
        self.streams.append(stream)
        self.held += 1
        where = dlpack.CUDA, self.device
        return dlpack.give(self.address, self.shape, self._type, where, self._end)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.device

    def _end(self) -> None:
        self.held -= 1


class LikeTorch(OnGpu):
    """One that has what PyTorch's tensors on a GPU have."""

    is_cuda = True

    def data_ptr(self) -> int:
        return self.address

    def is_contiguous(self) -> bool:
        return True

    def move(self, value: Any) -> None:
        """Other memory for the same tensor, as ``Tensor.set_`` gives it."""
        old = self.address
        self.address = self._cuda.device_buffer(numpy.ascontiguousarray(value).tobytes())
        self._cuda.cudaFree(old)


LikeTorch.__module__ = "torch"


class OnHost:
    """An array of the host that is not numpy's, perhaps with strides of its own."""

    def __init__(self, value: Any, name: str | None = None) -> None:
        self.value, self.held = value, 0
        self._type = name or TYPES[value.dtype.str]

    def __dlpack__(self) -> Any:
        self.held += 1
        address, shape = self.value.ctypes.data, self.value.shape
        return dlpack.give(address, shape, self._type, (dlpack.CPU, 0), self._end)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CPU, 0

    def _end(self) -> None:
        self.held -= 1
