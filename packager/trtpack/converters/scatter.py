# SPDX-License-Identifier: Apache-2.0
"""Tensors with some of their elements replaced or added to."""

from __future__ import annotations

import torch

from trtpack.target import Target
from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context
from .indexing import Indices, Placement, has_masks
from .nonzero import without_masks
from .refusals import unless_sized_by_data
from .registry import converter
from .scatter_reduce import added
from .slicing import first_index, part

aten = torch.ops.aten


@converter(aten.scatter.src)
def scatter(ctx: Context, self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """scatter.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor

    Shapes: as many dims each; ``src`` may be longer than ``index``. All may be dynamic.
    Dtypes: all; indices int32 or int64.
    Source: torch.scatter; ScatterMode.ELEMENT. Of equal indices, any may win.
    """
    if not self.rank:
        return ctx.reshape(src, ())
    updates = ctx.slice(src, (0,) * src.rank, index.shape) if src.shape != index.shape else src
    return ctx.add(
        "scatter",
        {"data": self, "indices": index, "updates": updates},
        mode="ELEMENT",
        axis=dim % self.rank,
    )


@converter(aten.scatter.value)
def scatter_value(ctx: Context, self: Tensor, dim: int, index: Tensor, value: float) -> Tensor:
    """scatter.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor"""
    src = ctx.expand(ctx.scalar(value, self.dtype, index.rank), index.shape)
    return scatter(ctx, self, dim, index, src)


@converter(aten.index_copy.default)
def index_copy(ctx: Context, self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """index_copy(Tensor self, int dim, Tensor index, Tensor source) -> Tensor"""
    return index_put(ctx, self, [*[None] * (dim % self.rank), index], source, False)


def _known_places(
    *, indices: Indices, values: Tensor, accumulate: bool, target: Target, **_: object
) -> str | None:
    if not has_masks(indices) or _is_select(indices, values, accumulate):
        return None
    return unless_sized_by_data(target=target)


def _is_select(indices: Indices, values: Tensor, accumulate: bool) -> bool:
    """Whether one mask puts one value, for which no place needs to be known."""
    one = len(indices) == 1 and dims.product(values.shape) == 1
    return one and not accumulate and indices[0] is not None and indices[0].dtype == "BOOL"


@converter(aten.index_put.default, aten._unsafe_index_put.default, when=_known_places)
def index_put(
    ctx: Context, self: Tensor, indices: Indices, values: Tensor, accumulate: bool
) -> Tensor:
    """index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor

    A scatter into rows along the indexed dims, which are moved to the front and joined to one.
    A boolean mask with one value is a select.

    Shapes: as ``index.Tensor``; values broadcast to what the index would answer.
    Dtypes: all; floats accumulate in float32.
    Errors: a boolean mask with several values is refused on TensorRT-RTX and before
        TensorRT 10.
    Source: torch.Tensor.index_put. Of equal indices, any may win unless accumulated.
    """
    if _is_select(indices, values, accumulate):
        assert indices[0] is not None
        return _masked(ctx, self, indices[0], values)
    if has_masks(indices):
        joined, given = without_masks(ctx, self, indices)
        return ctx.reshape(index_put(ctx, joined, given, values, accumulate), self.shape)
    front = _in_front(Placement.of(ctx, self, indices))
    place = Placement.of(ctx, self, indices)
    rows, (_, behind) = front.joined(ctx), front.around
    flat = front.flat(ctx)
    before, after = place.around
    updates = ctx.expand(values, (*before, *flat.shape, *after))
    n, k = len(before), flat.rank
    order = (*range(n, n + k), *range(n), *range(n + k, updates.rank))
    count = dims.product(flat.shape)
    updates = ctx.reshape(ctx.permute(updates, order), (count, *behind))
    if accumulate:
        out = added(ctx, rows, 0, ctx.reshape(flat, (count,)), updates)
    else:
        operands = {"data": rows, "indices": ctx.reshape(flat, (count, 1)), "updates": updates}
        out = ctx.add("scatter", operands, mode="ND", axis=0)
    moved = tuple(self.shape[d] for d in front.order)
    back = sorted(range(self.rank), key=front.order.__getitem__)
    return ctx.permute(ctx.reshape(out, moved), back)


@converter(aten.put.default)
def put(
    ctx: Context, self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False
) -> Tensor:
    """put(Tensor self, Tensor index, Tensor source, bool accumulate=False) -> Tensor

    Into the elements in one row.
    """
    row, places, values = (ctx.reshape(t, (dims.product(t.shape),)) for t in (self, index, source))
    return ctx.reshape(index_put(ctx, row, [places], values, accumulate), self.shape)


@converter(aten.select_scatter.default)
def select_scatter(ctx: Context, self: Tensor, src: Tensor, dim: int, index: Dim) -> Tensor:
    """select_scatter(Tensor self, Tensor src, int dim, SymInt index) -> Tensor"""
    dim %= self.rank
    start = first_index(ctx, index, self.shape[dim])
    line = (*self.shape[:dim], 1, *self.shape[dim + 1 :])
    return _replaced(ctx, self, ctx.reshape(src, line), dim, start, 1)


@converter(aten.slice_scatter.default)
def slice_scatter(
    ctx: Context, self: Tensor, src: Tensor, dim: int, start: Dim | None, end: Dim | None, step: int
) -> Tensor:
    """slice_scatter(Tensor self, Tensor src, int dim=0, SymInt? start=None, SymInt? end=None,
    SymInt step=1) -> Tensor

    Shapes: ``src`` has the length of the slice; all may be dynamic.
    Dtypes: all.
    """
    dim %= self.rank
    size, count = self.shape[dim], src.shape[dim]
    src = ctx.cast(src, self.dtype)
    if count == size and step == 1:
        return src
    first = first_index(ctx, start, size)
    if step == 1:
        return _replaced(ctx, self, src, dim, first, count)
    places = ctx.ramp((count,), (step,), first)
    return index_put(ctx, self, [*[None] * dim, places], src, False)


@converter(aten.diagonal_scatter.default)
def diagonal_scatter(
    ctx: Context, self: Tensor, src: Tensor, offset: int, dim1: int, dim2: int
) -> Tensor:
    """diagonal_scatter(Tensor self, Tensor src, int offset=0, int dim1=0, int dim2=1) -> Tensor

    The diagonal of ``src`` is moved to where ``self`` has it by broadcasting: row i and column
    i + offset both take element i, and a mask keeps the places where they meet.
    """
    first, second = dim1 % self.rank, dim2 % self.rank
    batch = [d for d in range(self.rank) if d not in (first, second)]
    rows, columns = self.shape[first], self.shape[second]
    before, behind = max(-offset, 0), rows - src.shape[-1] - max(-offset, 0)
    lead = src.shape[:-1]
    lines = ctx.slice(
        src, (*(0,) * len(lead), -before), (*lead, src.shape[-1] + before + behind), mode="FILL"
    )
    moved = ctx.permute(self, (*batch, first, second))
    on = ctx.elementwise("EQUAL", ctx.ramp((rows, columns), (-1, 1)), offset)
    out = ctx.select(on, ctx.reshape(lines, (*lead, rows, 1)), moved)
    order = (*batch, first, second)
    return ctx.permute(out, sorted(range(self.rank), key=order.__getitem__))


def _replaced(ctx: Context, x: Tensor, src: Tensor, dim: int, start: Dim, count: Dim) -> Tensor:
    """``x`` with ``count`` elements along ``dim`` from ``start`` on taken from ``src``."""
    behind = x.shape[dim] - start - count
    pieces = [src]
    if start != 0:
        pieces.insert(0, part(ctx, x, dim, 0, start))
    if behind != 0:
        pieces.append(part(ctx, x, dim, start + count, behind))
    return ctx.concatenate(pieces, dim)


def _masked(ctx: Context, x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    mask = ctx.reshape(mask, (*mask.shape, *(1,) * (x.rank - mask.rank)))
    return ctx.select(mask, ctx.reshape(value, (1,) * x.rank), x)


def _in_front(place: Placement) -> Placement:
    """The same with the indexed dims in front of all others."""
    others = [d for d in place.order if d not in place.indexed]
    return Placement(place.source, place.indexed, place.indices, (*place.indexed, *others), 0)
