# SPDX-License-Identifier: Apache-2.0
"""Choosing elements by a condition.

Shapes: any that broadcast, dynamic dims included.
Dtypes: all; the condition may be a number, which is true where it is not zero.
"""

from __future__ import annotations

import torch

from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import Operand
from .registry import converter

aten = torch.ops.aten


@converter(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def where(ctx: Context, condition: Tensor, self: Operand, other: Operand) -> Tensor:
    """where.self(Tensor condition, Tensor self, Tensor other) -> Tensor
    where.ScalarOther(Tensor condition, Tensor self, Scalar other) -> Tensor
    where.ScalarSelf(Tensor condition, Scalar self, Tensor other) -> Tensor
    where.Scalar(Tensor condition, Scalar self, Scalar other) -> Tensor
    """
    dtype, rank = ctx.result.dtype, ctx.result.rank
    then, otherwise = ctx.operand(self, dtype, rank), ctx.operand(other, dtype, rank)
    return ctx.select(ctx.cast(condition, "BOOL"), then, otherwise)


@converter(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(ctx: Context, self: Tensor, mask: Tensor, value: Operand) -> Tensor:
    """masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor
    masked_fill.Tensor(Tensor self, Tensor mask, Tensor value) -> Tensor
    """
    return where(ctx, mask, value, self)
