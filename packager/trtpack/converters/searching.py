# SPDX-License-Identifier: Apache-2.0
"""Where values belong among sorted ones: each is compared with all of them, and they are counted.

Shapes: any, dynamic dims included; a batch of sorted rows takes a row of values each.
Dtypes: float32, float16, bfloat16, int32, int64. NaN belongs behind all numbers.
"""

from __future__ import annotations

import torch

from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import Operand, common_dtype
from .registry import converter

aten = torch.ops.aten


@converter(aten.bucketize.Tensor, aten.bucketize.Scalar)
def bucketize(
    ctx: Context, self: Operand, boundaries: Tensor, out_int32: bool = False, right: bool = False
) -> Tensor:
    """bucketize.Tensor(Tensor self, Tensor boundaries, *, bool out_int32=False, bool right=False)
    -> Tensor
    bucketize.Scalar(Scalar self, Tensor boundaries, *, bool out_int32=False, bool right=False)
    -> Tensor
    """
    return _counted(ctx, boundaries, self, right)


@converter(aten.searchsorted.Tensor, aten.searchsorted.Scalar)
def searchsorted(
    ctx: Context,
    sorted_sequence: Tensor,
    self: Operand,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """searchsorted.Tensor(Tensor sorted_sequence, Tensor self, *, bool out_int32=False,
    bool right=False, str? side=None, Tensor? sorter=None) -> Tensor
    searchsorted.Scalar(Tensor sorted_sequence, Scalar self, *, bool out_int32=False,
    bool right=False, str? side=None, Tensor? sorter=None) -> Tensor

    ``sorter`` says in which order the sequence is sorted.
    """
    if sorter is not None:
        sorted_sequence = ctx.gather(sorted_sequence, sorter, -1, mode="ELEMENT")
    return _counted(ctx, sorted_sequence, self, right or side == "right")


def _counted(ctx: Context, sequence: Tensor, values: Operand, right: bool) -> Tensor:
    """How many of a sequence are before each value, those equal to it too if ``right``."""
    dtype = common_dtype(sequence, values)
    x = ctx.operand(values, dtype)
    row = ctx.cast(sequence, dtype)
    if row.rank > 1:
        row = ctx.reshape(row, (*row.shape[:-1], 1, row.shape[-1]))
    x = ctx.reshape(x, (*x.shape, 1))
    behind = ctx.elementwise("GREATER", row, x)
    if not right and dtype in FLOATS:
        behind = ctx.elementwise("OR", behind, ctx.elementwise("EQUAL", row, x))
    if right or dtype in FLOATS:
        before = ctx.unary("NOT", behind)
    else:
        before = ctx.elementwise("LESS", row, x)
    count = ctx.reduce("SUM", ctx.cast(before, "INT32"), -1, keep_dims=False)
    return ctx.cast(count, ctx.result.dtype)
