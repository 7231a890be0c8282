# SPDX-License-Identifier: Apache-2.0
"""Memory of the GPU and pinned memory of the host, each block given back exactly once."""

from __future__ import annotations

import ctypes
import math
import threading
from typing import TYPE_CHECKING, Any

from .cuda import Cuda

if TYPE_CHECKING:
    import numpy

ALIGNED = 256
"""What every tensor's address is a multiple of, as TensorRT wants it."""


def aligned(nbytes: int) -> int:
    """Bytes a tensor takes in a block; some even where it has no elements, for an address."""
    return max(ALIGNED, -(-nbytes // ALIGNED) * ALIGNED)


class Block:
    """Memory of the GPU. Who holds it says so; it is given back when the last one drops it."""

    def __init__(self, cuda: Cuda, nbytes: int) -> None:
        """Takes the memory; DeviceError where there is too little."""
        self._cuda, self.nbytes = cuda, nbytes
        self.address = cuda.allocate(nbytes)
        self.end = self.address + nbytes
        self._lock, self._holders = threading.Lock(), 1

    @property
    def alive(self) -> bool:
        """Whether it is still there."""
        return self._holders > 0

    def hold(self) -> None:
        """One more holder."""
        with self._lock:
            self._holders += 1

    def drop(self) -> None:
        """One holder less."""
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._cuda.use()
            self._cuda.free(self.address)


class Grown:
    """A block that is exchanged for a larger one where it is too small."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.block: Block | None = None

    def of(self, nbytes: int) -> Block:
        """A block of at least so many bytes; what was in a smaller one is lost."""
        if self.block is None or self.block.nbytes < nbytes:
            self.drop()
            self.block = Block(self._cuda, aligned(nbytes))
        return self.block

    def drop(self) -> None:
        """Gives it back; again does nothing."""
        block, self.block = self.block, None
        if block is not None:
            block.drop()


class Pinned:
    """Pinned memory of the host, which grows."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.address = self.nbytes = 0

    def reserve(self, nbytes: int) -> None:
        """Makes it at least so large; what was in a smaller one is lost."""
        if nbytes > self.nbytes:
            self.drop()
            self.address, self.nbytes = self._cuda.allocate_host(nbytes), nbytes

    def array(self, offset: int, dtype: Any, shape: tuple[int, ...]) -> numpy.ndarray[Any, Any]:
        """An array over a part of it."""
        return array_at(self.address + offset, dtype, shape)

    def drop(self) -> None:
        """Gives it back; again does nothing."""
        address, self.address, self.nbytes = self.address, 0, 0
        if address:
            self._cuda.free_host(address)


def array_at(
    address: int, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...] | None = None
) -> numpy.ndarray[Any, Any]:
    """An array over memory of the host; ``strides`` are in bytes and not negative."""
    import numpy

    kind = numpy.dtype(dtype)
    if 0 in shape:
        return numpy.empty(shape, kind)
    if strides is None:
        nbytes = kind.itemsize * math.prod(shape)
    else:
        steps = zip(shape, strides, strict=True)
        nbytes = kind.itemsize + sum((size - 1) * stride for size, stride in steps)
    memory = (ctypes.c_char * nbytes).from_address(address)
    array: numpy.ndarray[Any, Any] = numpy.ndarray(shape, kind, memory, 0, strides)
    return array
