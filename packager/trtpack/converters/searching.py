# SPDX-License-Identifier: Apache-2.0
"""Places in ordered tensors."""

from __future__ import annotations

from typing import Any

import torch

from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import Operand
from .refusals import SIZED_BY_DATA
from .registry import converter
from .running import running_sum

aten = torch.ops.aten


@converter(aten.searchsorted.Tensor, aten.searchsorted.Scalar)
def searchsorted(
    ctx: Context,
    sorted_sequence: Tensor,
    self: Operand,
    right: bool,
    side: str | None,
    sorter: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """searchsorted.Tensor(Tensor sorted_sequence, Tensor self, *, bool out_int32=False, bool
    right=False, str? side=None, Tensor? sorter=None) -> Tensor
    searchsorted.Scalar(Tensor sorted_sequence, Scalar self, *, bool out_int32=False, bool
    right=False, str? side=None, Tensor? sorter=None) -> Tensor

    As many places as there are boundaries before a value: each is compared with all of them.

    Shapes: one row of boundaries for all values, or one for every row of them; all may be dynamic.
    Dtypes: all numbers.
    Source: torch.searchsorted.
    """
    bounds = sorted_sequence
    if sorter is not None:
        bounds = ctx.gather(bounds, sorter, -1, mode="ELEMENT")
    values = ctx.operand(self, bounds.dtype)
    count = bounds.shape[-1]
    lead = (*bounds.shape[:-1], 1) if bounds.rank > 1 else (1,) * values.rank
    row = ctx.reshape(bounds, (*lead, count))
    column = ctx.reshape(values, (*values.shape, 1))
    op = "GREATER" if right or side == "right" else "LESS"
    outside = ctx.elementwise(op, row, column)
    if op == "GREATER":
        outside = ctx.unary("NOT", outside)
    before = ctx.reduce("SUM", ctx.cast(outside, "INT32"), -1, keep_dims=False)
    return ctx.reshape(ctx.cast(before, ctx.result.dtype), ctx.result.shape)


@converter(aten.bucketize.Tensor, aten.bucketize.Scalar)
def bucketize(ctx: Context, self: Operand, boundaries: Tensor, right: bool, **_: Any) -> Tensor:
    """bucketize.Tensor(Tensor self, Tensor boundaries, *, bool out_int32=False, bool right=False)
    -> Tensor
    bucketize.Scalar(Scalar self, Tensor boundaries, *, bool out_int32=False, bool right=False) ->
    Tensor
    """
    return searchsorted(ctx, boundaries, self, right, None)


def _unknown_length(*, output_size: Dim | None = None, **_: object) -> str | None:
    return SIZED_BY_DATA if output_size is None else None


@converter(aten.repeat_interleave.Tensor, when=_unknown_length)
def repeat_interleave(ctx: Context, repeats: Tensor, output_size: Dim | None = None) -> Tensor:
    """repeat_interleave.Tensor(Tensor repeats, *, SymInt? output_size=None) -> Tensor

    The place of each position among the running sums of ``repeats``.

    Errors: without an ``output_size`` the result's size depends on data.
    """
    ends = running_sum(ctx, repeats, 0, "INT64")
    return searchsorted(ctx, ends, ctx.ramp(ctx.result.shape, (1,)), True, None)
