# SPDX-License-Identifier: Apache-2.0
"""Softmax, its logarithm, and the logarithm of a sum of exponentials.

Shapes: any rank, along any dim, dynamic dims included.
Dtypes: float32, float16, bfloat16; other types where a float ``dtype`` is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trtpack_runtime.network import Tensor

from .context import Context
from .registry import converter

aten = torch.ops.aten


@converter(aten.softmax.int, aten._softmax.default)
def softmax(ctx: Context, self: Tensor, dim: int, **_: Any) -> Tensor:
    """softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor
    _softmax(Tensor self, int dim, bool half_to_float) -> Tensor

    Source: NvInfer.h, ISoftMaxLayer: at least two dims; sums are kept in float32.
    """
    x = ctx.unsqueeze_to(ctx.cast(self, ctx.result.dtype), 2)
    return ctx.reshape(ctx.softmax(x, _from_behind(dim, self)), self.shape)


@converter(aten._safe_softmax.default)
def safe_softmax(ctx: Context, self: Tensor, dim: int, **_: Any) -> Tensor:
    """_safe_softmax(Tensor self, int dim, ScalarType? dtype=None) -> Tensor

    Zeros where all along ``dim`` are -inf, which softmax answers NaN for. TensorRT 8 may have
    written a constant -inf as -1e38 (measured).
    """
    x, axis = ctx.unsqueeze_to(ctx.cast(self, ctx.result.dtype), 2), _from_behind(dim, self)
    largest = ctx.reduce("MAX", x, axis, keep_dims=True)
    is_masked = _is_endless(ctx, largest)
    answer = ctx.select(is_masked, ctx.scalar(0.0, x.dtype, x.rank), ctx.softmax(x, axis))
    return ctx.reshape(answer, self.shape)


def _is_endless(ctx: Context, largest: Tensor) -> Tensor:
    if ctx.has("10.0"):
        return ctx.elementwise("EQUAL", largest, float("-inf"))
    return ctx.elementwise("LESS", largest, -65504.0 if largest.dtype == "HALF" else -9e37)


@converter(aten.log_softmax.int, aten._log_softmax.default)
def log_softmax(ctx: Context, self: Tensor, dim: int, **_: Any) -> Tensor:
    """log_softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor
    _log_softmax(Tensor self, int dim, bool half_to_float) -> Tensor

    ``x - max - log(sum(exp(x - max)))``, which does not underflow, in float32.
    """
    if 0 in self.shape:
        return ctx.cast(self, ctx.result.dtype)
    axis = _from_behind(dim, self)
    x = ctx.unsqueeze_to(ctx.cast(self, "FLOAT"), 1)
    below = ctx.elementwise("SUB", x, ctx.reduce("MAX", x, axis, keep_dims=True))
    total = ctx.reduce("SUM", ctx.unary("EXP", below), axis, keep_dims=True)
    answer = ctx.elementwise("SUB", below, ctx.unary("LOG", total))
    return ctx.cast(ctx.reshape(answer, self.shape), ctx.result.dtype)


@converter(aten.logsumexp.default)
def logsumexp(ctx: Context, self: Tensor, dim: Sequence[int], keepdim: bool = False) -> Tensor:
    """logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor

    ``log(sum(exp(x - max))) + max`` in float32; an infinite maximum is taken as 0.
    """
    x = ctx.unsqueeze_to(ctx.cast(self, "FLOAT"), 1)
    axes = [_from_behind(d, self) for d in dim] or range(-x.rank, 0)
    largest = ctx.reduce("MAX", x, list(axes), keep_dims=True)
    zero = ctx.scalar(0.0, "FLOAT", x.rank)
    shift = ctx.select(ctx.unary("ISINF", largest), zero, largest)
    powers = ctx.unary("EXP", ctx.elementwise("SUB", x, shift))
    total = ctx.reduce("SUM", powers, list(axes), keep_dims=True)
    answer = ctx.elementwise("SUM", ctx.unary("LOG", total), shift)
    return ctx.cast(ctx.reshape(answer, ctx.result.shape), ctx.result.dtype)


def _from_behind(dim: int, x: Tensor) -> int:
    """A dim counted from the end, which leading dims of size 1 do not move."""
    rank = max(x.rank, 1)
    return dim % rank - rank
