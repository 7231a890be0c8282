# SPDX-License-Identifier: Apache-2.0
"""The operators that quantized values of lowered graphs are.

``fake_quantize`` rounds a tensor to numbers of few bits and answers what they stand for:

    quantized = saturate(round_half_even(x / scale));  quantized * scale

``dequantize`` answers what stored numbers stand for. A scale of no dim is for all, of one dim for
each channel along ``axis``, of the tensor's rank for each block along ``axis``. ``dtype`` is
TensorRT's name: INT8 from -128 to 127, INT4 from -8 to 7, or FP8, which is E4M3 up to 448.
INT4 is stored as int8.

Converters know the operators; what runs in PyTorch has its parts instead
(``lowering/expand_composites.py``), since a device's PyTorch knows ATen only. They are not folded
where all they read is constant: TensorRT wants to see how weights are quantized.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("trtpack", "FRAGMENT")
_LIBRARY.define("fake_quantize(Tensor x, Tensor scale, int? axis, str dtype) -> Tensor")
_LIBRARY.define(
    "dequantize(Tensor stored, Tensor scale, int? axis, str dtype, ScalarType out) -> Tensor"
)

RANGES = {"INT8": (-128, 127), "INT4": (-8, 7), "FP8": (-448, 448)}
"""The least and the largest number of each type."""


@torch.library.impl(_LIBRARY, "fake_quantize", "CompositeExplicitAutograd")
def _fake_quantize(x: Tensor, scale: Tensor, axis: int | None, dtype: str) -> Tensor:
    along = spread(scale, tuple(x.shape), axis)
    low, high = RANGES[dtype]
    scaled = x.float() / along
    if dtype == "FP8":
        rounded = scaled.clamp(low, high).to(torch.float8_e4m3fn).float()
    else:
        rounded = scaled.round().clamp(low, high)
    return (rounded * along).to(x.dtype)


@torch.library.impl(_LIBRARY, "fake_quantize", "Meta")
def _fake_quantize_shape(x: Tensor, scale: Tensor, axis: int | None, dtype: str) -> Tensor:
    return torch.empty_like(x)


@torch.library.impl(_LIBRARY, "dequantize", "CompositeExplicitAutograd")
def _dequantize(
    stored: Tensor, scale: Tensor, axis: int | None, dtype: str, out: torch.dtype
) -> Tensor:
    return (stored.float() * spread(scale, tuple(stored.shape), axis)).to(out)


@torch.library.impl(_LIBRARY, "dequantize", "Meta")
def _dequantize_shape(
    stored: Tensor, scale: Tensor, axis: int | None, dtype: str, out: torch.dtype
) -> Tensor:
    return torch.empty_like(stored, dtype=out)


def spread(scale: Tensor, shape: tuple[int, ...], axis: int | None) -> Tensor:
    """The scales in float32, in a shape that meets a tensor of ``shape``."""
    scale = scale.float()
    if scale.dim() == 0 or axis is None:
        return scale
    if scale.dim() == 1:
        return scale.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])
    blocks = shape[axis] // scale.shape[axis]
    return scale if blocks == 1 else scale.repeat_interleave(blocks, axis)


FAKE_QUANTIZE = torch.ops.trtpack.fake_quantize.default
DEQUANTIZE = torch.ops.trtpack.dequantize.default
