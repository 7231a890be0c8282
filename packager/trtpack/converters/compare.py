# SPDX-License-Identifier: Apache-2.0
"""Comparisons; both operands first take their common type, the answer is bool.

Shapes: any two that broadcast, dynamic dims included.
Dtypes: all; 8-bit integers meet in int32. NaN is unequal to and in no order with all.
"""

from __future__ import annotations

import torch

from trtpack_runtime.layers import INTS
from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import Operand, common_dtype
from .registry import converter

aten = torch.ops.aten


@converter(aten.eq.Tensor, aten.eq.Scalar)
def eq(ctx: Context, self: Tensor, other: Operand) -> Tensor:
    """eq.Tensor(Tensor self, Tensor other) -> Tensor
    eq.Scalar(Tensor self, Scalar other) -> Tensor
    """
    return ctx.elementwise("EQUAL", *_meet(ctx, self, other))


@converter(aten.ne.Tensor, aten.ne.Scalar)
def ne(ctx: Context, self: Tensor, other: Operand) -> Tensor:
    """ne.Tensor(Tensor self, Tensor other) -> Tensor
    ne.Scalar(Tensor self, Scalar other) -> Tensor
    """
    return ctx.unary("NOT", ctx.elementwise("EQUAL", *_meet(ctx, self, other)))


@converter(aten.gt.Tensor, aten.gt.Scalar)
def gt(ctx: Context, self: Tensor, other: Operand) -> Tensor:
    """gt.Tensor(Tensor self, Tensor other) -> Tensor
    gt.Scalar(Tensor self, Scalar other) -> Tensor
    """
    return ctx.elementwise("GREATER", *_in_order(ctx, self, other))


@converter(aten.lt.Tensor, aten.lt.Scalar)
def lt(ctx: Context, self: Tensor, other: Operand) -> Tensor:
    """lt.Tensor(Tensor self, Tensor other) -> Tensor
    lt.Scalar(Tensor self, Scalar other) -> Tensor
    """
    return ctx.elementwise("LESS", *_in_order(ctx, self, other))


@converter(aten.ge.Tensor, aten.ge.Scalar)
def ge(ctx: Context, self: Tensor, other: Operand) -> Tensor:
    """ge.Tensor(Tensor self, Tensor other) -> Tensor
    ge.Scalar(Tensor self, Scalar other) -> Tensor
    """
    return _or_equal(ctx, "GREATER", "LESS", self, other)


@converter(aten.le.Tensor, aten.le.Scalar)
def le(ctx: Context, self: Tensor, other: Operand) -> Tensor:
    """le.Tensor(Tensor self, Tensor other) -> Tensor
    le.Scalar(Tensor self, Scalar other) -> Tensor
    """
    return _or_equal(ctx, "LESS", "GREATER", self, other)


def _or_equal(ctx: Context, op: str, opposite: str, self: Tensor, other: Operand) -> Tensor:
    a, b = _in_order(ctx, self, other)
    if a.dtype in INTS:
        return ctx.unary("NOT", ctx.elementwise(opposite, a, b))
    return ctx.elementwise("OR", ctx.elementwise(op, a, b), ctx.elementwise("EQUAL", a, b))


def _meet(ctx: Context, self: Tensor, other: Operand) -> tuple[Tensor, Tensor]:
    dtype, rank = common_dtype(self, other), ctx.result.rank
    dtype = "INT32" if dtype in ("INT8", "UINT8") else dtype
    return ctx.operand(self, dtype, rank), ctx.operand(other, dtype, rank)


def _in_order(ctx: Context, self: Tensor, other: Operand) -> tuple[Tensor, Tensor]:
    a, b = _meet(ctx, self, other)
    if a.dtype == "BOOL":
        return ctx.cast(a, "INT32"), ctx.cast(b, "INT32")
    return a, b
