# SPDX-License-Identifier: Apache-2.0
"""Elements added to, multiplied with or compared to those already there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from trtpack_runtime.dims import Dim
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .indexing import from_start
from .registry import converter

aten = torch.ops.aten

_REDUCTIONS = {
    "sum": ("SUM", "SUM", 0.0),
    "add": ("SUM", "SUM", 0.0),
    "mean": ("SUM", "SUM", 0.0),
    "prod": ("PROD", "PROD", 1.0),
    "multiply": ("PROD", "PROD", 1.0),
    "amax": ("MAX", "MAX", -math.inf),
    "amin": ("MIN", "MIN", math.inf),
}
"""Reduction -> the layer over new elements, the one that joins the old, what leaves it alone."""


@converter(aten.scatter_reduce.two)
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
    Dtypes: float16, bfloat16 (reduced in float32), float32, int32, int64; bool and uint8 by way of
        int32.
    Source: torch.scatter_reduce; a mean of whole numbers is rounded down.
    """
    if not self.rank:
        row = (ctx.reshape(t, (1,)) for t in (self, index, src))
        x, place, new = row
        return ctx.reshape(_reduced(ctx, x, 0, place, new, reduce, include_self), ())
    new = ctx.slice(src, (0,) * src.rank, index.shape) if src.shape != index.shape else src
    return _reduced(ctx, self, dim % self.rank, index, new, reduce, include_self)


@converter(aten.scatter_add.default)
def scatter_add(ctx: Context, self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """scatter_add(Tensor self, int dim, Tensor index, Tensor src) -> Tensor"""
    return scatter_reduce(ctx, self, dim, index, src, "sum")


@converter(aten.scatter.reduce)
def scatter_by(
    ctx: Context, self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str
) -> Tensor:
    """scatter.reduce(Tensor self, int dim, Tensor index, Tensor src, *, str reduce) -> Tensor"""
    return scatter_reduce(ctx, self, dim, index, src, reduce)


@converter(aten.scatter.value_reduce)
def scatter_value_by(
    ctx: Context, self: Tensor, dim: int, index: Tensor, value: float, reduce: str
) -> Tensor:
    """scatter.value_reduce(Tensor self, int dim, Tensor index, Scalar value, *, str reduce) ->
    Tensor
    """
    src = ctx.expand(ctx.scalar(value, self.dtype, index.rank), index.shape)
    return scatter_reduce(ctx, self, dim, index, src, reduce)


@converter(aten.index_reduce.default)
def index_reduce(
    ctx: Context,
    self: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    include_self: bool,
) -> Tensor:
    """index_reduce(Tensor self, int dim, Tensor index, Tensor source, str reduce, *, bool
    include_self=True) -> Tensor
    """
    axis = dim % max(self.rank, 1)
    along = [-1 if i == axis else 1 for i in range(source.rank)]
    line = tuple(index.shape[0] if n < 0 and index.rank else 1 for n in along)
    places = ctx.expand(ctx.reshape(index, line), source.shape)
    return scatter_reduce(ctx, self, dim, places, source, reduce, include_self)


@converter(aten.index_add.default)
def index_add(
    ctx: Context, self: Tensor, dim: int, index: Tensor, source: Tensor, alpha: float
) -> Tensor:
    """index_add(Tensor self, int dim, Tensor index, Tensor source, *, Scalar alpha=1) -> Tensor"""
    wide = _wide(self.dtype)
    source = ctx.cast(source, wide)
    if alpha != 1:
        source = ctx.elementwise("PROD", source, alpha)
    if self.rank:
        return added(ctx, self, dim % self.rank, ctx.unsqueeze_to(index, 1), source)
    out = ctx.elementwise("SUM", ctx.cast(self, wide), ctx.reshape(source, ()))
    return ctx.cast(out, self.dtype)


def added(ctx: Context, x: Tensor, axis: int, index: Tensor, source: Tensor) -> Tensor:
    """``x`` with slices of ``source`` added at the places a row of indices names along ``axis``.

    A product with the matrix that is 1 where a place meets its index; whole numbers, which a
    product in float32 would round, are compared and reduced.
    """
    index = from_start(ctx, ctx.cast(index, "INT64"), x.shape[axis])
    if x.dtype not in FLOATS:
        line = tuple(index.shape[0] if i == axis else 1 for i in range(x.rank))
        places = ctx.expand(ctx.reshape(index, line), source.shape)
        return _reduced(ctx, x, axis, places, source, "sum", include_self=True)
    column = ctx.reshape(index, (*index.shape, 1))
    hits = ctx.cast(ctx.elementwise("EQUAL", column, ctx.ramp((x.shape[axis],), (1,))), "FLOAT")
    sums = ctx.product_along(ctx.cast(source, "FLOAT"), hits, axis)
    return ctx.cast(ctx.elementwise("SUM", ctx.cast(x, "FLOAT"), sums), x.dtype)


def _reduced(
    ctx: Context,
    x: Tensor,
    axis: int,
    index: Tensor,
    new: Tensor,
    reduce: str,
    include_self: bool,
) -> Tensor:
    """``x`` with ``new`` reduced into the places that ``index``, of its shape, names."""
    inner, join, neutral = _REDUCTIONS[reduce]
    dtype = _wide(x.dtype)
    line = (*index.shape[: axis + 1], 1, *index.shape[axis + 1 :])
    behind = x.rank - axis - 1
    places = ctx.ramp((x.shape[axis], *(1,) * behind), (1, *(0,) * behind))
    hits = ctx.elementwise("EQUAL", ctx.cast(ctx.reshape(index, line), "INT64"), places)
    fill = neutral if dtype == "FLOAT" else _limit(ctx, neutral, dtype)
    chosen = ctx.select(
        hits, ctx.reshape(ctx.cast(new, dtype), line), ctx.scalar(fill, dtype, len(line))
    )
    total = _filled(ctx, ctx.reduce(inner, chosen, axis, keep_dims=False), x.shape, fill)
    old = ctx.cast(x, dtype)
    if include_self:
        total = ctx.elementwise(join, old, total)
        if reduce != "mean":
            return ctx.cast(total, x.dtype)
    count = ctx.reduce("SUM", ctx.cast(hits, "INT32"), axis, keep_dims=False)
    count = _filled(ctx, count, x.shape, 0)
    if reduce == "mean":
        parts = ctx.elementwise("SUM", count, 1) if include_self else _at_least_one(ctx, count)
        divide = "DIV" if dtype == "FLOAT" else "FLOOR_DIV"
        total = ctx.elementwise(divide, total, ctx.cast(parts, dtype))
    if not include_self:
        total = ctx.select(ctx.elementwise("GREATER", count, 0), total, old)
    return ctx.cast(total, x.dtype)


def _at_least_one(ctx: Context, count: Tensor) -> Tensor:
    return ctx.elementwise("MAX", count, 1)


def _filled(ctx: Context, x: Tensor, shape: Sequence[Dim], fill: float) -> Tensor:
    """``x`` with ``fill`` behind, up to a larger shape."""
    if x.shape == tuple(shape):
        return x
    value = ctx.scalar(fill, x.dtype) if fill else None
    return ctx.slice(x, (0,) * x.rank, shape, mode="FILL", fill=value)


def _wide(dtype: str) -> str:
    """The type that elements of ``dtype`` are reduced in."""
    if dtype in FLOATS:
        return "FLOAT"
    return "INT64" if dtype == "INT64" else "INT32"


def _limit(ctx: Context, neutral: float, dtype: str) -> int:
    if math.isfinite(neutral):
        return int(neutral)
    wide = dtype == "INT64" and ctx.has("10.0")  # before, INT64 is INT32 in the engine
    info = torch.iinfo(torch.int64 if wide else torch.int32)
    return info.max if neutral > 0 else info.min
