# SPDX-License-Identifier: Apache-2.0
"""Places of elements that are not zero, whose number the data tells."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trtpack.target import Target
from trtpack_runtime import dims
from trtpack_runtime.network import Tensor

from .context import Context
from .refusals import unless_sized_by_data
from .registry import converter

aten = torch.ops.aten


def _has_places(*, self: Tensor, target: Target, **_: object) -> str | None:
    if not self.rank:
        return "a number has no places; TensorRT's layer takes one dim or more"
    return unless_sized_by_data(target=target)


@converter(aten.nonzero.default, aten.argwhere.default, when=_has_places)
def nonzero(ctx: Context, self: Tensor) -> Tensor:
    """nonzero(Tensor self) -> Tensor

    Shapes: (d0, ..., dk) to (count, k + 1); all may be dynamic. Only the data tells the count.
    Dtypes: all; the answer is int64.
    Errors: 0-d tensors are refused, and so are TensorRT-RTX, which has no such layer, and TensorRT
        before 10.
    Source: NvInfer.h, INonZeroLayer, which answers the transpose.
    """
    return ctx.permute(places(ctx, self), (1, 0))


@converter(aten.nonzero_static.default, when=_has_places)
def nonzero_static(ctx: Context, self: Tensor, size: int, fill_value: int = -1) -> Tensor:
    """nonzero_static(Tensor self, *, SymInt size, int fill_value=-1) -> Tensor

    As many rows of filling behind as are ever needed, then the first ``size`` of all.
    """
    found = nonzero(ctx, self)
    shape = (size, self.rank)
    filling = ctx.expand(ctx.scalar(fill_value, "INT64", 2), shape)
    return ctx.slice(ctx.concatenate([found, filling], 0), (0, 0), shape)


def places(ctx: Context, mask: Tensor) -> Tensor:
    """(rank, count): where a tensor is not zero, as INT64, in the order of its elements."""
    found = ctx.add("non_zero", {"input": ctx.cast(mask, "BOOL")}, indices_type="INT64")
    ctx.bounds.limit(found.shape[1], ctx.bounds.at_most(dims.product(mask.shape)))
    return found


def places_in_row(ctx: Context, mask: Tensor) -> Tensor:
    """(count,): where the elements of a tensor are not zero, counted through all its dims."""
    found = places(ctx, ctx.reshape(mask, (dims.product(mask.shape),)))
    return ctx.reshape(found, (found.shape[1],))


def without_masks(
    ctx: Context, x: Tensor, indices: Sequence[Tensor | None]
) -> tuple[Tensor, list[Tensor | None]]:
    """Advanced indexing without boolean masks: the dims of each are joined, and indexed by the
    places where it is true."""
    shape, given = x.shape, list(indices)
    for axis, index in enumerate(indices):
        if index is not None and index.dtype == "BOOL":
            end = axis + index.rank
            shape = (*shape[:axis], dims.product(shape[axis:end]), *shape[end:])
            given[axis] = places_in_row(ctx, index)
    return ctx.reshape(x, shape), given
