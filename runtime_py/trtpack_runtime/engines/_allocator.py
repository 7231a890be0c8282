# SPDX-License-Identifier: Apache-2.0
"""Memory for outputs whose size only the data tells, which TensorRT asks for while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_LEAST_BYTES = 256


def output_allocator(trt: Any, device: torch.device) -> Any:
    """An ``IOutputAllocator`` of a TensorRT that hands out PyTorch's memory.

    ``taken(name, dtype)`` answers the tensor of the last run, and forgets it. Release 8.6 calls
    ``reallocate_output``, 10.0 and later ``reallocate_output_async``.
    """
    import torch

    class Allocator(trt.IOutputAllocator):
        """An exception must not pass through TensorRT, which takes 0 for no memory."""

        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.memory: dict[str, torch.Tensor] = {}
            self.shapes: dict[str, tuple[int, ...]] = {}

        def reallocate_output(self, name: str, memory: Any, size: int, alignment: int) -> int:
            return self.given(name, size)

        def reallocate_output_async(
            self, name: str, memory: Any, size: int, alignment: int, stream: Any
        ) -> int:
            return self.given(name, size)

        def given(self, name: str, size: int) -> int:
            try:
                count = max(int(size), _LEAST_BYTES)
                self.memory[name] = torch.empty(count, dtype=torch.uint8, device=device)
            except RuntimeError:  # the GPU has none left
                self.memory.pop(name, None)
                return 0
            return self.memory[name].data_ptr()

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shapes[name] = tuple(shape)

        def taken(self, name: str, dtype: torch.dtype) -> torch.Tensor | None:
            shape, memory = self.shapes.pop(name, None), self.memory.pop(name, None)
            if shape is None:
                return None
            empty = torch.empty(shape, dtype=dtype, device="meta")
            nbytes = empty.numel() * empty.element_size()
            if memory is None:
                return None if nbytes else torch.empty(shape, dtype=dtype, device=device)
            return memory[:nbytes].view(dtype).reshape(shape)

    return Allocator()
