# SPDX-License-Identifier: Apache-2.0
"""The larger, the smaller, and clamping between bounds.

Shapes: any that broadcast, dynamic dims included.
Dtypes: float32, float16, bfloat16, int32, int64, uint8, bool.
NaN: beside a number, the number may be the answer, where PyTorch answers NaN; measured on TensorRT
8.6, documented nowhere.
"""

from __future__ import annotations

import torch

from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import Operand, computed, needs_wider_signed_integers
from .registry import converter

aten = torch.ops.aten


@converter(aten.maximum.default, aten.max.other, when=needs_wider_signed_integers)
def maximum(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """maximum(Tensor self, Tensor other) -> Tensor
    max.other(Tensor self, Tensor other) -> Tensor
    """
    return _extremum(ctx, "MAX", self, other)


@converter(aten.minimum.default, aten.min.other, when=needs_wider_signed_integers)
def minimum(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """minimum(Tensor self, Tensor other) -> Tensor
    min.other(Tensor self, Tensor other) -> Tensor
    """
    return _extremum(ctx, "MIN", self, other)


@converter(aten.clamp.default, when=needs_wider_signed_integers)
def clamp(ctx: Context, self: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor

    Where ``min`` is above ``max`` the answer is ``max`` everywhere.
    Source: NvInfer.h, kCLIP: max(alpha, min(beta, x)), both finite.
    """
    x = ctx.cast(self, ctx.result.dtype)
    if min is None or max is None or x.dtype not in FLOATS or not _finite(min, max):
        return clamp_tensor(ctx, x, min, max)
    return ctx.activation("CLIP", x, alpha=float(min if min < max else max), beta=float(max))


@converter(aten.clamp.Tensor, when=needs_wider_signed_integers)
def clamp_tensor(
    ctx: Context, self: Tensor, min: Operand | None = None, max: Operand | None = None
) -> Tensor:
    """clamp.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor"""
    x = ctx.cast(self, ctx.result.dtype)
    if min == 0 and x.dtype in FLOATS:
        x = ctx.activation("RELU", x)
    elif min is not None:
        x = _extremum(ctx, "MAX", x, min)
    return x if max is None else _extremum(ctx, "MIN", x, max)


@converter(aten.clamp_min.default, aten.clamp_min.Tensor, when=needs_wider_signed_integers)
def clamp_min(ctx: Context, self: Tensor, min: Operand) -> Tensor:
    """clamp_min(Tensor self, Scalar min) -> Tensor
    clamp_min.Tensor(Tensor self, Tensor min) -> Tensor
    """
    return clamp_tensor(ctx, self, min=min)


@converter(aten.clamp_max.default, aten.clamp_max.Tensor, when=needs_wider_signed_integers)
def clamp_max(ctx: Context, self: Tensor, max: Operand) -> Tensor:
    """clamp_max(Tensor self, Scalar max) -> Tensor
    clamp_max.Tensor(Tensor self, Tensor max) -> Tensor
    """
    return clamp_tensor(ctx, self, max=max)


def _extremum(ctx: Context, op: str, a: Operand, b: Operand) -> Tensor:
    dtype, rank = ctx.result.dtype, ctx.result.rank
    if dtype == "BOOL":
        op = {"MAX": "OR", "MIN": "AND"}[op]
    sides = (ctx.operand(x, computed(dtype), rank) for x in (a, b))
    return ctx.cast(ctx.elementwise(op, *sides), dtype)


def _finite(*bounds: float) -> bool:
    return all(abs(bound) != float("inf") for bound in bounds)
