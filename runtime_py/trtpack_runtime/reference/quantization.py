# SPDX-License-Identifier: Apache-2.0
"""Numbers of few bits with scales, as TensorRT defines them.

``quantize`` divides by the scale, rounds half to even and saturates: INT8 to [-128, 127], INT4 to
[-8, 7], FP8 (E4M3, which rounds to its own numbers) to [-448, 448]. ``dequantize`` multiplies. Both
compute in float32.

INT4, for which PyTorch has no type to compute with, is held as int8 here.

Sources: ``NvInfer.h`` 8.6, 10.3 and 11.1, ``IQuantizeLayer`` and ``IDequantizeLayer``.
"""

from __future__ import annotations

import torch

from .pointwise import torch_dtype
from .registry import kernel

T = torch.Tensor
_FP8_MAX = 448.0
_RANGES = {"INT8": (-128, 127), "INT4": (-8, 7)}


@kernel
def quantize(input: T, scale: T, output_type: str, axis: int | None = None) -> T:
    scaled = input.float() / _along(scale, axis, input)
    if output_type == "FP8":
        return scaled.clamp(-_FP8_MAX, _FP8_MAX).to(torch_dtype("FP8"))
    return scaled.round().clamp(*_RANGES[output_type]).to(torch.int8)


@kernel
def dequantize(input: T, scale: T, output_type: str, axis: int | None = None) -> T:
    return (input.float() * _along(scale, axis, input)).to(torch_dtype(output_type))


def held(dtype: str) -> str:
    """The type that elements of ``dtype`` have here."""
    return "INT8" if dtype == "INT4" else dtype


def unpacked(stored: T, count: int) -> T:
    """``count`` elements of INT4, two to a byte with the first in the low bits, as int8."""
    pairs = stored.reshape(-1).view(torch.uint8)
    both = torch.stack([pairs & 15, pairs >> 4], -1).reshape(-1)[:count].to(torch.int8)
    return torch.where(both > 7, both - 16, both)


def _along(scale: T, axis: int | None, input: T) -> T:
    """The scale of every element: one for all, one for each channel, or one for each block."""
    if scale.dim() == 1 and axis is not None:
        return scale.float().reshape([-1 if i == axis else 1 for i in range(input.dim())])
    for dim, (size, count) in enumerate(zip(input.shape, scale.shape, strict=False)):
        if size != count:
            scale = scale.repeat_interleave(size // count, dim)
    return scale.float()
