# SPDX-License-Identifier: Apache-2.0
"""Sums, means, products, extrema, any and all over dims.

Shapes: any rank, any dims, dynamic ones included; no ``dim`` means all of them.
Dtypes: float32, float16, bfloat16, int32, int64, bool; half sums and means are kept in float32.
NaN: amax and amin may pass over it, where PyTorch answers NaN; measured on TensorRT 8.6, documented
nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import needs_wider_integers, wide
from .registry import converter

aten = torch.ops.aten
Dims = int | Sequence[int] | None


@converter(aten.sum.default, aten.sum.dim_IntList)
def sum(ctx: Context, self: Tensor, dim: Dims = None, keepdim: bool = False, **_: Any) -> Tensor:
    """sum(Tensor self, *, ScalarType? dtype=None) -> Tensor
    sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None)
    -> Tensor

    Integers and truth values add up in int64.
    """
    return _accumulated(ctx, "SUM", self, dim, keepdim)


@converter(aten.mean.default, aten.mean.dim)
def mean(ctx: Context, self: Tensor, dim: Dims = None, keepdim: bool = False, **_: Any) -> Tensor:
    """mean(Tensor self, *, ScalarType? dtype=None) -> Tensor
    mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor
    """
    return _accumulated(ctx, "AVG", self, dim, keepdim)


@converter(aten.prod.default, aten.prod.dim_int)
def prod(ctx: Context, self: Tensor, dim: Dims = None, keepdim: bool = False, **_: Any) -> Tensor:
    """prod(Tensor self, *, ScalarType? dtype=None) -> Tensor
    prod.dim_int(Tensor self, int dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor
    """
    return _accumulated(ctx, "PROD", self, dim, keepdim)


@converter(aten.amax.default, aten.max.default, when=needs_wider_integers)
def amax(ctx: Context, self: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor
    max(Tensor self) -> Tensor
    """
    return _extreme(ctx, "MAX", self, dim, keepdim)


@converter(aten.amin.default, aten.min.default, when=needs_wider_integers)
def amin(ctx: Context, self: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor
    min(Tensor self) -> Tensor
    """
    return _extreme(ctx, "MIN", self, dim, keepdim)


@converter(aten.any.default, aten.any.dim, aten.any.dims)
def any(ctx: Context, self: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """any(Tensor self) -> Tensor
    any.dim(Tensor self, int dim, bool keepdim=False) -> Tensor
    any.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor
    """
    return _extreme(ctx, "MAX", ctx.cast(self, "BOOL"), dim, keepdim)


@converter(aten.all.default, aten.all.dim, aten.all.dims)
def all(ctx: Context, self: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """all(Tensor self) -> Tensor
    all.dim(Tensor self, int dim, bool keepdim=False) -> Tensor
    all.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor
    """
    return _extreme(ctx, "MIN", ctx.cast(self, "BOOL"), dim, keepdim)


@converter(aten.linalg_vector_norm.default)
def linalg_vector_norm(
    ctx: Context,
    self: Tensor,
    ord: float = 2,
    dim: Dims = None,
    keepdim: bool = False,
    **_: Any,
) -> Tensor:
    """linalg_vector_norm(Tensor self, Scalar ord=2, int[1]? dim=None, bool keepdim=False, *,
    ScalarType? dtype=None) -> Tensor

    ``sum(|x| ** ord) ** (1 / ord)``; 0 counts, infinities take the largest or smallest.
    """
    return ctx.cast(vector_norm(ctx, ctx.cast(self, "FLOAT"), ord, dim, keepdim), ctx.result.dtype)


@converter(
    aten.norm.Scalar,
    aten.norm.ScalarOpt_dim,
    aten.norm.ScalarOpt_dtype,
    aten.norm.ScalarOpt_dim_dtype,
)
def norm(
    ctx: Context,
    self: Tensor,
    p: float | None = 2,
    dim: Dims = None,
    keepdim: bool = False,
    **_: Any,
) -> Tensor:
    """norm.Scalar(Tensor self, Scalar p=2) -> Tensor
    norm.ScalarOpt_dim(Tensor self, Scalar? p, int[1] dim, bool keepdim=False) -> Tensor
    norm.ScalarOpt_dtype(Tensor self, Scalar? p, *, ScalarType dtype) -> Tensor
    norm.ScalarOpt_dim_dtype(Tensor self, Scalar? p, int[1] dim, bool keepdim, *, ScalarType dtype)
    -> Tensor
    """
    return linalg_vector_norm(ctx, self, 2 if p is None else p, dim, keepdim)


def vector_norm(ctx: Context, x: Tensor, ord: float, dim: Dims, keepdim: bool) -> Tensor:
    """The norm of a FLOAT tensor along ``dim``."""
    size = ctx.unary("ABS", x)
    if abs(ord) == float("inf"):
        return reduced(ctx, "MAX" if ord > 0 else "MIN", size, dim, keepdim)
    if ord == 0:
        is_zero = ctx.elementwise("EQUAL", x, 0.0)
        return reduced(ctx, "SUM", ctx.cast(ctx.unary("NOT", is_zero), "FLOAT"), dim, keepdim)
    if ord == 1:
        return reduced(ctx, "SUM", size, dim, keepdim)
    if ord == 2:
        return ctx.unary("SQRT", reduced(ctx, "SUM", ctx.elementwise("PROD", x, x), dim, keepdim))
    total = reduced(ctx, "SUM", ctx.elementwise("POW", size, float(ord)), dim, keepdim)
    return ctx.elementwise("POW", total, 1 / ord)


def axes_of(dim: Dims, rank: int) -> list[int]:
    """The axes that ``dim`` names, all where it names none."""
    if dim is None or dim == []:
        return list(range(rank))
    return [dim] if isinstance(dim, int) else list(dim)


def reduced(ctx: Context, op: str, x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    """A ``ReduceOperation`` over ``dim``; a tensor of rank 0 is its own answer."""
    if x.rank == 0:
        return x
    return ctx.reduce(op, x, axes_of(dim, x.rank), keep_dims=keepdim)


def _accumulated(ctx: Context, op: str, x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    dtype = ctx.result.dtype
    if x.dtype != dtype:
        x = ctx.cast(x, dtype)
    return ctx.cast(reduced(ctx, op, ctx.cast(x, wide(dtype)), dim, keepdim), dtype)


def _extreme(ctx: Context, op: str, x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    countable = ctx.cast(x, "INT32") if x.dtype == "BOOL" else x
    return ctx.cast(reduced(ctx, op, countable, dim, keepdim), ctx.result.dtype)
