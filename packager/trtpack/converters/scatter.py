# SPDX-License-Identifier: Apache-2.0
"""Tensors with some of their elements replaced or added to."""

from __future__ import annotations

import math

import torch

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .indexing import Indices, Placement, from_start
from .registry import converter
from .slicing import first_index, part

aten = torch.ops.aten

_REDUCTIONS = {
    "sum": ("SUM", "SUM", 0.0),
    "add": ("SUM", "SUM", 0.0),
    "prod": ("PROD", "PROD", 1.0),
    "multiply": ("PROD", "PROD", 1.0),
    "amax": ("MAX", "MAX", -math.inf),
    "amin": ("MIN", "MIN", math.inf),
}
"""Reduction -> the layer over new elements, the one that joins the old, what leaves it alone."""


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


def _sums(*, reduce: str, **_: object) -> str | None:
    return None if reduce in _REDUCTIONS else f"scattering by {reduce} is not converted"


@converter(aten.scatter_add.default)
def scatter_add(ctx: Context, self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """scatter_add(Tensor self, int dim, Tensor index, Tensor src) -> Tensor"""
    return scatter_reduce(ctx, self, dim, index, src, "sum")


@converter(aten.scatter.reduce, when=_sums)
def scatter_by(
    ctx: Context, self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str
) -> Tensor:
    """scatter.reduce(Tensor self, int dim, Tensor index, Tensor src, *, str reduce) -> Tensor"""
    return scatter_reduce(ctx, self, dim, index, src, reduce)


def _includes_self(*, include_self: bool, **arguments: str) -> str | None:
    return _sums(**arguments) if include_self else "scattering without the old values"


@converter(aten.scatter_reduce.two, when=_includes_self)
def scatter_reduce(
    ctx: Context,
    self: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor,
    reduce: str,
    include_self: bool = True,
) -> Tensor:
    """scatter_reduce.two(Tensor self, int dim, Tensor index, Tensor src, str reduce, *, bool
    include_self=True) -> Tensor

    TensorRT only replaces: every new element is compared with every place along ``dim``, and the
    matching ones are reduced. That takes (elements of ``src``) x (size along ``dim``) steps.

    Shapes: as ``scatter``; all may be dynamic.
    Dtypes: float16, bfloat16 (reduced in float32), float32, int32, int64.
    Source: torch.scatter_reduce.
    """
    axis = dim % max(self.rank, 1)
    inner, join, neutral = _REDUCTIONS[reduce]
    if not self.rank:
        return ctx.elementwise(join, self, ctx.reshape(src, ()))
    dtype = "FLOAT" if self.dtype in FLOATS else self.dtype
    src = ctx.slice(src, (0,) * src.rank, index.shape) if src.shape != index.shape else src
    wide = (*index.shape[: axis + 1], 1, *index.shape[axis + 1 :])
    places = ctx.ramp(
        (self.shape[axis], *(1,) * (self.rank - axis - 1)), (1, *(0,) * (self.rank - axis - 1))
    )
    hits = ctx.elementwise("EQUAL", ctx.cast(ctx.reshape(index, wide), "INT64"), places)
    fill = neutral if dtype == "FLOAT" else _limit(ctx, neutral, dtype)
    chosen = ctx.select(
        hits, ctx.cast(ctx.reshape(src, wide), dtype), ctx.scalar(fill, dtype, len(wide))
    )
    reduced = ctx.reduce(inner, chosen, axis, keep_dims=False)
    shape = tuple(
        n if i == axis else d
        for i, (d, n) in enumerate(zip(reduced.shape, self.shape, strict=True))
    )
    if shape != self.shape:
        filler = ctx.scalar(fill, dtype) if fill else None
        reduced = ctx.slice(reduced, (0,) * self.rank, self.shape, mode="FILL", fill=filler)
    return ctx.cast(ctx.elementwise(join, ctx.cast(self, dtype), reduced), self.dtype)


@converter(aten.index_add.default)
def index_add(
    ctx: Context, self: Tensor, dim: int, index: Tensor, source: Tensor, alpha: float
) -> Tensor:
    """index_add(Tensor self, int dim, Tensor index, Tensor source, *, Scalar alpha=1) -> Tensor

    A product with the matrix that is 1 where a place meets its index.
    """
    if not self.rank:
        return ctx.elementwise("SUM", self, ctx.elementwise("PROD", ctx.reshape(source, ()), alpha))
    axis = dim % self.rank
    added = ctx.product_along(ctx.cast(source, "FLOAT"), _hits(ctx, index, self.shape[axis]), axis)
    if alpha != 1:
        added = ctx.elementwise("PROD", added, float(alpha))
    return ctx.cast(ctx.elementwise("SUM", ctx.cast(self, "FLOAT"), added), self.dtype)


@converter(aten.index_copy.default)
def index_copy(ctx: Context, self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """index_copy(Tensor self, int dim, Tensor index, Tensor source) -> Tensor"""
    return index_put(ctx, self, [*[None] * (dim % self.rank), index], source, False)


def _known_places(
    *, self: Tensor, indices: Indices, values: Tensor, accumulate: bool, **_: object
) -> str | None:
    masks = [i for i in indices if i is not None and i.dtype == "BOOL"]
    if not masks:
        return None
    if accumulate or len(indices) > 1 or dims.product(values.shape) != 1:
        return "a boolean index picks a number of elements that depends on data"
    return None


@converter(aten.index_put.default, aten._unsafe_index_put.default, when=_known_places)
def index_put(
    ctx: Context, self: Tensor, indices: Indices, values: Tensor, accumulate: bool
) -> Tensor:
    """index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor

    A scatter into rows along the indexed dims, which are moved to the front and joined to one.
    A boolean mask with one value is a select.

    Shapes: as ``index.Tensor``; values broadcast to what the index would answer.
    Dtypes: all; accumulated in float32.
    Errors: a boolean mask with several values is refused.
    Source: torch.Tensor.index_put. Of equal indices, any may win unless accumulated.
    """
    if indices[0] is not None and indices[0].dtype == "BOOL":
        return _masked(ctx, self, indices[0], values)
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
        hits = _hits(ctx, ctx.reshape(flat, (count,)), rows.shape[0])
        sums = ctx.product_along(ctx.cast(updates, "FLOAT"), hits, 0)
        out = ctx.cast(ctx.elementwise("SUM", ctx.cast(rows, "FLOAT"), sums), self.dtype)
    else:
        operands = {"data": rows, "indices": ctx.reshape(flat, (count, 1)), "updates": updates}
        out = ctx.add("scatter", operands, mode="ND", axis=0)
    moved = tuple(self.shape[d] for d in front.order)
    back = sorted(range(self.rank), key=front.order.__getitem__)
    return ctx.permute(ctx.reshape(out, moved), back)


@converter(aten.select_scatter.default)
def select_scatter(ctx: Context, self: Tensor, src: Tensor, dim: int, index: Dim) -> Tensor:
    """select_scatter(Tensor self, Tensor src, int dim, SymInt index) -> Tensor"""
    dim %= self.rank
    start = first_index(index, self.shape[dim])
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
    first = first_index(start, size)
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


def _hits(ctx: Context, index: Tensor, size: Dim) -> Tensor:
    """(count, size) of float32: 1 where ``index`` names a place."""
    index = from_start(ctx, ctx.cast(ctx.unsqueeze_to(index, 1), "INT64"), size)
    column = ctx.reshape(index, (*index.shape, 1))
    return ctx.cast(ctx.elementwise("EQUAL", column, ctx.ramp((size,), (1,))), "FLOAT")


def _limit(ctx: Context, neutral: float, dtype: str) -> int:
    if math.isfinite(neutral):
        return int(neutral)
    wide = dtype == "INT64" and ctx.has("10.0")  # before, INT64 is INT32 in the engine
    info = torch.iinfo(torch.int64 if wide else torch.int32)
    return info.max if neutral > 0 else info.min
