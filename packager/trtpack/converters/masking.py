# SPDX-License-Identifier: Apache-2.0
"""Elements picked and placed where a mask is true."""

from __future__ import annotations

import torch

from trtpack.target import Target
from trtpack_runtime import dims
from trtpack_runtime.network import Tensor

from .context import Context
from .nonzero import places_in_row
from .refusals import unless_sized_by_data
from .registry import converter
from .running import running_sum

aten = torch.ops.aten

_MOST_COUNTED_BY_TABLE = 1 << 11
"""Of elements before TensorRT 10.8, whose running sum takes their number squared."""


def _countable(*, self: Tensor, mask: Tensor, target: Target, **_: object) -> str | None:
    if target.tensorrt_at_least("10.8"):
        return None
    shapes = (self.shape, mask.shape)
    if all(dims.is_static(shape) for shape in shapes):
        count = torch.broadcast_shapes(*shapes).numel()
        if count <= _MOST_COUNTED_BY_TABLE:
            return None
    return "a running count of so many elements needs ICumulativeLayer of TensorRT 10.8"


@converter(aten.masked_scatter.default, when=_countable)
def masked_scatter(ctx: Context, self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """masked_scatter(Tensor self, Tensor mask, Tensor source) -> Tensor

    A running count of the mask says which element of the source each place takes; a select keeps
    the others, so that no size depends on data.

    Shapes: ``self`` and ``mask`` broadcast; all may be dynamic.
    Dtypes: all.
    Errors: before TensorRT 10.8 open sizes and more than 2048 elements are refused.
    Source: torch.Tensor.masked_scatter, which takes a source that is long enough.
    """
    shape = ctx.result.shape
    if 0 in source.shape:
        return ctx.expand(self, shape)
    mask = ctx.expand(mask, shape)
    row = ctx.reshape(mask, (dims.product(shape),))
    count = running_sum(ctx, row, 0, "INT64")
    places = ctx.elementwise("MAX", ctx.elementwise("SUB", count, 1), 0)
    taken = ctx.gather(ctx.reshape(source, (dims.product(source.shape),)), places, 0)
    return ctx.select(mask, ctx.reshape(taken, shape), ctx.expand(self, shape))


@converter(aten.masked_select.default, when=unless_sized_by_data)
def masked_select(ctx: Context, self: Tensor, mask: Tensor) -> Tensor:
    """masked_select(Tensor self, Tensor mask) -> Tensor

    Shapes: both broadcast; all may be dynamic. Only the data tells how many elements there are.
    Dtypes: all.
    Errors: TensorRT-RTX, which has no layer for it, and TensorRT before 10 are refused.
    """
    rank = max(self.rank, mask.rank)
    sides = ((1,) * (rank - t.rank) + t.shape for t in (self, mask))
    shape = tuple(b if a == 1 else a for a, b in zip(*sides, strict=True))
    row = ctx.reshape(ctx.expand(self, shape), (dims.product(shape),))
    return ctx.gather(row, places_in_row(ctx, ctx.expand(mask, shape)), 0)
