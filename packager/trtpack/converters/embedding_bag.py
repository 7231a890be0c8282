# SPDX-License-Identifier: Apache-2.0
"""Rows of a table, reduced bag by bag."""

from __future__ import annotations

import math

import torch

from trtpack_runtime.network import Tensor

from .context import Context
from .registry import converter

aten = torch.ops.aten

_SUM, _MEAN, _MAX = range(3)


@converter(aten._embedding_bag.default, aten._embedding_bag_forward_only.default)
def embedding_bag(
    ctx: Context,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    mode: int,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
    padding_idx: int,
    **_: bool,
) -> tuple[Tensor, None, None, None]:
    """_embedding_bag_forward_only(Tensor weight, Tensor indices, Tensor offsets, bool
    scale_grad_by_freq=False, int mode=0, bool sparse=False, Tensor? per_sample_weights=None, bool
    include_last_offset=False, int padding_idx=-1) -> (Tensor, Tensor, Tensor, Tensor)

    A bag's sum is a product with the (bags, indices) matrix of who belongs to it; the other
    results serve training.

    Shapes: one dim of indices and of offsets; both may be dynamic.
    Dtypes: float16, bfloat16 (reduced in float32), float32; indices int32 or int64.
    Source: torch.nn.functional.embedding_bag; bags without indices are 0.
    """
    rows = ctx.cast(ctx.gather(weight, indices, 0), "FLOAT")
    if include_last_offset:
        offsets = ctx.slice(offsets, (0,), (ctx.result.shape[0],))
    members = _members(ctx, indices, offsets, padding_idx)
    if mode == _MAX:
        return ctx.cast(_largest(ctx, rows, members), ctx.result.dtype), None, None, None
    shares = ctx.cast(members, "FLOAT")
    if per_sample_weights is not None:
        shares = ctx.elementwise("PROD", shares, ctx.cast(per_sample_weights, "FLOAT"))
    total = ctx.matmul(shares, rows)
    if mode == _MEAN:
        count = ctx.elementwise("MAX", ctx.reduce("SUM", shares, 1, keep_dims=True), 1)
        total = ctx.elementwise("DIV", total, count)
    return ctx.cast(total, ctx.result.dtype), None, None, None


def _members(ctx: Context, indices: Tensor, offsets: Tensor, padding_idx: int) -> Tensor:
    """Whether the index in column ``i`` belongs to the bag in row ``b``.

    It does where as many bags begin after ``i`` as stand behind ``b``.
    """
    count, bags = indices.shape[0], offsets.shape[0]
    starts = ctx.reshape(ctx.cast(offsets, "INT64"), (bags, 1))
    later = ctx.elementwise("GREATER", starts, ctx.ramp((1, count), (0, 1)))
    behind = ctx.reduce("SUM", ctx.cast(later, "INT64"), 0, keep_dims=True)
    members = ctx.elementwise("EQUAL", behind, ctx.ramp((bags, 1), (-1, 0), bags - 1))
    if padding_idx < 0:
        return members
    padding = ctx.elementwise("EQUAL", ctx.reshape(indices, (1, count)), padding_idx)
    return ctx.elementwise("AND", members, ctx.unary("NOT", padding))


def _largest(ctx: Context, rows: Tensor, members: Tensor) -> Tensor:
    count, width = rows.shape
    bags = members.shape[0]
    belongs = ctx.reshape(members, (bags, count, 1))
    chosen = ctx.select(
        belongs, ctx.reshape(rows, (1, count, width)), ctx.scalar(-math.inf, "FLOAT", 3)
    )
    largest = ctx.reduce("MAX", chosen, 1, keep_dims=False)
    size = ctx.reduce("SUM", ctx.cast(members, "INT64"), 1, keep_dims=True)
    return ctx.select(ctx.elementwise("GREATER", size, 0), largest, ctx.scalar(0, "FLOAT", 2))
