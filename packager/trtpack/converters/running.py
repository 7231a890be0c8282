# SPDX-License-Identifier: Apache-2.0
"""Sums, products, extrema and logarithms of sums from the start of a dim.

TensorRT has the sum alone, from 10.8 on. All else, and whole numbers before, takes (size along the
dim) squared steps: every element is reduced over itself and those before it.
Shapes: any rank, dynamic dims included.
Dtypes: float32, float16, bfloat16, int32, int64, bool where PyTorch has it; halves in float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .pointwise import isnan
from .promotion import computed, needs_wider_signed_integers, wide
from .registry import converter
from .triangle import above_diagonal

aten = torch.ops.aten


@converter(aten.cumsum.default)
def cumsum(ctx: Context, self: Tensor, dim: int, **_: Any) -> Tensor:
    """cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor

    Before TensorRT 10.8, which has kSUM of ICumulativeLayer, the product with a triangle of ones,
    for floats and truth values: a float32 holds how many there are.
    """
    return running_sum(ctx, self, dim, ctx.result.dtype)


@converter(aten.cumprod.default)
def cumprod(ctx: Context, self: Tensor, dim: int, **_: Any) -> Tensor:
    """cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    dtype = ctx.result.dtype
    if self.rank == 0:
        return ctx.cast(self, dtype)
    factors = _prefixes(ctx, ctx.cast(ctx.cast(self, dtype), wide(dtype)), dim, 1)
    return ctx.cast(ctx.reduce("PROD", factors, dim % self.rank + 1, keep_dims=False), dtype)


@converter(aten.cummax.default, when=needs_wider_signed_integers)
def cummax(ctx: Context, self: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """cummax(Tensor self, int dim) -> (Tensor values, Tensor indices)"""
    return _extreme(ctx, "MAX", self, dim)


@converter(aten.cummin.default, when=needs_wider_signed_integers)
def cummin(ctx: Context, self: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """cummin(Tensor self, int dim) -> (Tensor values, Tensor indices)"""
    return _extreme(ctx, "MIN", self, dim)


@converter(aten.logcumsumexp.default)
def logcumsumexp(ctx: Context, self: Tensor, dim: int) -> Tensor:
    """logcumsumexp(Tensor self, int dim) -> Tensor

    ``log(sum(exp(x - max))) + max`` of each; an infinite maximum is taken as 0.
    """
    x = ctx.cast(self, "FLOAT")
    if x.rank == 0:
        return self
    axis = dim % x.rank + 1
    terms = _prefixes(ctx, x, dim, -math.inf)
    largest = ctx.reduce("MAX", terms, axis, keep_dims=True)
    is_infinite = ctx.unary("ISINF", largest)
    shift = ctx.select(is_infinite, ctx.scalar(0.0, "FLOAT", largest.rank), largest)
    powers = ctx.unary("EXP", ctx.elementwise("SUB", terms, shift))
    total = ctx.unary("LOG", ctx.reduce("SUM", powers, axis, keep_dims=True))
    answer = ctx.reshape(ctx.elementwise("SUM", total, shift), self.shape)
    return ctx.cast(answer, ctx.result.dtype)


def running_sum(ctx: Context, given: Tensor, dim: int, dtype: str) -> Tensor:
    """The sums as ``dtype`` of each element and those before it."""
    x = ctx.cast(given, dtype)
    if x.rank == 0:
        return x
    x = ctx.cast(x, computed(dtype))
    if ctx.has("10.8"):
        x = ctx.cast(x, wide(dtype))
        total = ctx.add(
            "cumulative", {"input": x}, op="SUM", axis=dim % x.rank, exclusive=False, reverse=False
        )
        return ctx.cast(total, dtype)
    if x.dtype not in FLOATS and given.dtype != "BOOL":
        total = ctx.reduce("SUM", _prefixes(ctx, x, dim, 0), dim % x.rank + 1, keep_dims=False)
        return ctx.cast(total, dtype)
    size = x.shape[dim]
    ones = ctx.cast(above_diagonal(ctx, size, size, -1), "FLOAT")
    return ctx.cast(ctx.product_along(ctx.cast(x, "FLOAT"), ones, dim), dtype)


def _extreme(ctx: Context, op: str, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The values, and where the last of equal ones is; a NaN is the last that counts."""
    if x.rank == 0:
        return x, ctx.scalar(0, "INT64")
    x = ctx.cast(x, "INT32" if x.dtype == "BOOL" else computed(x.dtype))
    axis, size = dim % x.rank + 1, x.shape[dim]
    terms = _prefixes(ctx, x, dim, worst(ctx, op, x.dtype))
    values = ctx.reduce(op, terms, axis, keep_dims=True)
    behind = (1,) * (x.rank - axis)
    places = ctx.ramp((size, *behind), (1, *(0 for _ in behind)))
    found = ctx.elementwise("EQUAL", _rows(ctx, x, dim), values)
    if x.dtype in FLOATS:
        found = ctx.elementwise("OR", found, isnan(ctx, _rows(ctx, x, dim)))
    found = ctx.elementwise("AND", found, _reached(ctx, x, dim))
    places = ctx.select(found, places, ctx.scalar(0, "INT64"))
    answer = ctx.cast(ctx.reshape(values, x.shape), ctx.result.dtype)
    return answer, ctx.reduce("MAX", places, axis, keep_dims=False)


def _prefixes(ctx: Context, x: Tensor, dim: int, beyond: float) -> Tensor:
    """(..., i, j, ...): element j where it is not behind i, else ``beyond``."""
    return ctx.select(_reached(ctx, x, dim), _rows(ctx, x, dim), ctx.scalar(beyond, x.dtype))


def _rows(ctx: Context, x: Tensor, dim: int) -> Tensor:
    axis = dim % x.rank
    return ctx.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def _reached(ctx: Context, x: Tensor, dim: int) -> Tensor:
    """(i, j, 1...): whether j is not behind i."""
    size, behind = x.shape[dim], (1,) * (x.rank - dim % x.rank - 1)
    distance = ctx.ramp((size, size, *behind), (1, -1, *(0 for _ in behind)))
    return ctx.elementwise("GREATER", distance, -1)


def worst(ctx: Context, op: str, dtype: str) -> float:
    """What every element is as large or as small as; before TensorRT 10.0 int64 has 32 bits."""
    if dtype in FLOATS:
        return -math.inf if op == "MAX" else math.inf
    narrow = dtype == "INT32" or not ctx.has("10.0")
    limits = torch.iinfo(torch.int32 if narrow else torch.int64)
    return limits.min if op == "MAX" else limits.max
