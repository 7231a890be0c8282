# SPDX-License-Identifier: Apache-2.0
"""Memory for outputs whose size only the data tells, which TensorRT asks for while it runs."""

from __future__ import annotations

from typing import Any

from ..errors import DeviceError
from .arrays import Shape
from .cuda import Cuda
from .memory import Block, Grown


def output_allocator(trt: Any, cuda: Cuda) -> Any:
    """An ``IOutputAllocator`` of a TensorRT over memory that is kept from call to call.

    ``taken(name)`` answers the shape and block of the last run. Release 8.6 calls
    ``reallocate_output``, 10.0 and later ``reallocate_output_async``.
    """

    class Allocator(trt.IOutputAllocator):
        """An exception must not pass through TensorRT, which takes 0 for no memory."""

        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.memory: dict[str, Grown] = {}
            self.shapes: dict[str, Shape] = {}

        def reallocate_output(self, name: str, memory: Any, size: int, alignment: int) -> int:
            return self.given(name, size)

        def reallocate_output_async(
            self, name: str, memory: Any, size: int, alignment: int, stream: Any
        ) -> int:
            return self.given(name, size)

        def given(self, name: str, size: int) -> int:
            try:
                return self.memory.setdefault(name, Grown(cuda)).of(int(size)).address
            except DeviceError:
                return 0

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shapes[name] = tuple(shape)

        def taken(self, name: str) -> tuple[Shape, Block]:
            shape = self.shapes.pop(name, None)
            if shape is None:
                raise DeviceError(
                    f"output {name}: TensorRT did not tell its size", hint="build the bundle again"
                )
            return shape, self.memory.setdefault(name, Grown(cuda)).of(1)

        def drop(self) -> None:
            for memory in self.memory.values():
                memory.drop()

    return Allocator()
