# SPDX-License-Identifier: Apache-2.0
"""The middle element in order, and the most frequent one.

Shapes: any; all sizes may be dynamic.
Dtypes: float16, bfloat16, float32, int32, int64; bool and uint8 by way of wider ones.
Errors: more than 3840 elements of a large tensor are refused.
Of equal elements, any index may be answered.
"""

from __future__ import annotations

import math

import torch

from trtpack_runtime import dims
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .pointwise import isnan
from .promotion import computed
from .ranking import too_many_comparisons
from .registry import converter
from .running import worst
from .sort import kthvalue, ordered, too_long

aten = torch.ops.aten
Answer = tuple[Tensor, Tensor]


@converter(aten.median.dim, when=too_long)
def median_dim(ctx: Context, self: Tensor, dim: int, keepdim: bool = False) -> Answer:
    """median.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)

    Source: torch.median: of an even number of elements, the lower of the middle two; the first NaN
    where there is one.
    """
    size = self.shape[dim] if self.rank else 1
    value, place = kthvalue(ctx, self, (size + 1) // 2, dim, keepdim)
    if self.dtype not in FLOATS or not self.rank:
        return value, place
    places = ctx.select(isnan(ctx, self), _places(ctx, self, dim), ctx.size(size, rank=self.rank))
    first = ctx.reshape(ctx.reduce("MIN", places, dim, keep_dims=True), ctx.result.shape)
    is_nan = ctx.elementwise("LESS", first, ctx.size(size, rank=first.rank))
    value = ctx.select(is_nan, ctx.scalar(math.nan, value.dtype, value.rank), value)
    return value, ctx.select(is_nan, first, place)


@converter(aten.nanmedian.dim, when=too_long)
def nanmedian_dim(ctx: Context, self: Tensor, dim: int, keepdim: bool = False) -> Answer:
    """nanmedian.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)

    The middle of those that are numbers: NaN, as infinity, comes behind them.
    """
    if self.dtype not in FLOATS or not self.rank:
        return median_dim(ctx, self, dim, keepdim)
    is_nan = isnan(ctx, self)
    numbers = ctx.select(is_nan, ctx.scalar(math.inf, self.dtype, self.rank), self)
    values, places = ordered(ctx, numbers, self.shape[dim], dim, False)
    count = ctx.cast(ctx.unary("NOT", is_nan), "INT64")
    last = ctx.elementwise("SUB", ctx.reduce("SUM", count, dim, keep_dims=True), 1)
    middle = ctx.elementwise("FLOOR_DIV", ctx.elementwise("MAX", last, 0), 2)
    value, place = (ctx.gather(t, middle, dim % t.rank, mode="ELEMENT") for t in (values, places))
    none = ctx.elementwise("LESS", last, 0)
    value = ctx.select(none, ctx.scalar(math.nan, value.dtype, value.rank), value)
    return ctx.reshape(value, ctx.result.shape), ctx.reshape(place, ctx.result.shape)


def _too_long_a_row(*, self: Tensor, **_: object) -> str | None:
    return too_long(self=Tensor(self.name, self.dtype, (dims.product(self.shape),)))


@converter(aten.median.default, when=_too_long_a_row)
def median(ctx: Context, self: Tensor) -> Tensor:
    """median(Tensor self) -> Tensor"""
    return median_dim(ctx, _row(ctx, self), 0)[0]


@converter(aten.nanmedian.default, when=_too_long_a_row)
def nanmedian(ctx: Context, self: Tensor) -> Tensor:
    """nanmedian(Tensor self) -> Tensor"""
    return nanmedian_dim(ctx, _row(ctx, self), 0)[0]


def _compares_all(*, self: Tensor, dim: int = -1, **_: object) -> str | None:
    return too_many_comparisons(self, dim) if self.rank else None


@converter(aten.mode.default, when=_compares_all)
def mode(ctx: Context, self: Tensor, dim: int = -1, keepdim: bool = False) -> Answer:
    """mode(Tensor self, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)

    Every element is compared with all others; the smallest of the most frequent, the last of those.
    A NaN counts once.
    """
    if not self.rank:
        return self, ctx.scalar(0, "INT64")
    axis = dim % self.rank
    x = ctx.cast(self, "INT32" if self.dtype == "BOOL" else computed(self.dtype))
    count = _alike(ctx, x, axis)
    often = ctx.elementwise("EQUAL", count, ctx.reduce("MAX", count, axis, keep_dims=True))
    number = ctx.elementwise("EQUAL", x, x)
    candidate = ctx.elementwise("AND", often, number)
    beyond = ctx.scalar(worst(ctx, "MIN", x.dtype), x.dtype, x.rank)
    least = ctx.reduce("MIN", ctx.select(candidate, x, beyond), axis, keep_dims=True)
    found = ctx.elementwise("AND", candidate, ctx.elementwise("EQUAL", x, least))
    places = ctx.select(found, _places(ctx, x, axis), ctx.scalar(0, "INT64", x.rank))
    place = ctx.reduce("MAX", places, axis, keep_dims=True)
    value = ctx.reshape(ctx.gather(x, place, axis, mode="ELEMENT"), ctx.result.shape)
    return ctx.cast(value, ctx.result.dtype), ctx.reshape(place, ctx.result.shape)


def _alike(ctx: Context, x: Tensor, axis: int) -> Tensor:
    """How many elements along ``axis`` are equal to each one."""
    this, other = (ctx.reshape(x, (*x.shape[:at], 1, *x.shape[at:])) for at in (axis + 1, axis))
    alike = ctx.cast(ctx.elementwise("EQUAL", this, other), "INT32")
    return ctx.reduce("SUM", alike, axis + 1, keep_dims=False)


def _places(ctx: Context, x: Tensor, dim: int) -> Tensor:
    """Every element's index along ``dim``, to be broadcast."""
    axis = dim % x.rank
    along = (*(1,) * axis, x.shape[axis], *(1,) * (x.rank - axis - 1))
    return ctx.ramp(along, [int(i == axis) for i in range(x.rank)])


def _row(ctx: Context, x: Tensor) -> Tensor:
    return ctx.reshape(x, (dims.product(x.shape),))
