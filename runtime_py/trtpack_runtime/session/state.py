# SPDX-License-Identifier: Apache-2.0
"""State slots: a tensor that lasts from call to call, in two places that take turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .arrays import Shape
from .cuda import Cuda
from .memory import Block, Grown

if TYPE_CHECKING:
    import numpy


class State:
    """One slot: a call reads it in one place and writes its next value to the other.

    ``first`` is its first value in the type it has on the GPU.
    """

    def __init__(self, cuda: Cuda, dtype: str, first: numpy.ndarray[Any, Any]) -> None:
        self._cuda, self.dtype, self._first = cuda, dtype, first
        self._places = Grown(cuda), Grown(cuda)
        self._turn = 0
        self.shape: Shape = first.shape

    @property
    def first_shape(self) -> Shape:
        """The shape of its first value."""
        shape: Shape = self._first.shape
        return shape

    @property
    def block(self) -> Block:
        """Where its value lies."""
        return self._places[self._turn].of(1)

    def next_block(self, nbytes: int) -> Block:
        """Where its next value is to lie."""
        return self._places[1 - self._turn].of(nbytes)

    def swap(self, shape: Shape) -> None:
        """Makes the next value the present one."""
        self._turn, self.shape = 1 - self._turn, shape

    def reset(self, stream: Any, given: numpy.ndarray[Any, Any] | None = None) -> None:
        """Puts the first value back, or a given one of the type it has on the GPU, after what the
        stream has to do."""
        value = self._first if given is None else given
        block = self._places[self._turn].of(value.nbytes)
        self.shape = value.shape
        if value.nbytes:
            self._cuda.copy_in(block.address, value.ctypes.data, value.nbytes, stream)
            self._cuda.wait(stream)

    def drop(self) -> None:
        """Gives its memory back."""
        for place in self._places:
            place.drop()
