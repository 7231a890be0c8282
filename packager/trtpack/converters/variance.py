# SPDX-License-Identifier: Apache-2.0
"""Variances and standard deviations over dims, computed in float32.

Shapes: any rank, any dims, dynamic ones included; no ``dim`` means all of them.
Dtypes: float32, float16, bfloat16.
"""

from __future__ import annotations

import math

import torch

from trtpack_runtime import dims
from trtpack_runtime.network import Tensor

from .context import Context
from .reduce import Dims, axes_of
from .registry import converter

aten = torch.ops.aten


@converter(aten.var.correction)
def var(
    ctx: Context,
    self: Tensor,
    dim: Dims = None,
    correction: float | None = None,
    keepdim: bool = False,
) -> Tensor:
    """var.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None,
    bool keepdim=False) -> Tensor
    """
    return ctx.cast(_variance(ctx, self, dim, correction, keepdim)[0], ctx.result.dtype)


@converter(aten.var.default, aten.var.dim)
def var_dim(
    ctx: Context, self: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False
) -> Tensor:
    """var(Tensor self, bool unbiased=True) -> Tensor
    var.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor
    """
    return var(ctx, self, dim, int(unbiased), keepdim)


@converter(aten.std.correction)
def std(
    ctx: Context,
    self: Tensor,
    dim: Dims = None,
    correction: float | None = None,
    keepdim: bool = False,
) -> Tensor:
    """std.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None,
    bool keepdim=False) -> Tensor
    """
    variance, _ = _variance(ctx, self, dim, correction, keepdim)
    return ctx.cast(ctx.unary("SQRT", variance), ctx.result.dtype)


@converter(aten.std.default, aten.std.dim)
def std_dim(
    ctx: Context, self: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False
) -> Tensor:
    """std(Tensor self, bool unbiased=True) -> Tensor
    std.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor
    """
    return std(ctx, self, dim, int(unbiased), keepdim)


@converter(aten.var_mean.correction)
def var_mean(
    ctx: Context,
    self: Tensor,
    dim: Dims = None,
    correction: float | None = None,
    keepdim: bool = False,
) -> tuple[Tensor, Tensor]:
    """var_mean.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None,
    bool keepdim=False) -> (Tensor, Tensor)
    """
    variance, mean = _variance(ctx, self, dim, correction, keepdim)
    return ctx.cast(variance, ctx.result.dtype), ctx.cast(mean, ctx.result.dtype)


@converter(aten.std_mean.correction)
def std_mean(
    ctx: Context,
    self: Tensor,
    dim: Dims = None,
    correction: float | None = None,
    keepdim: bool = False,
) -> tuple[Tensor, Tensor]:
    """std_mean.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None,
    bool keepdim=False) -> (Tensor, Tensor)
    """
    variance, mean = _variance(ctx, self, dim, correction, keepdim)
    root = ctx.unary("SQRT", variance)
    return ctx.cast(root, ctx.result.dtype), ctx.cast(mean, ctx.result.dtype)


def _variance(
    ctx: Context, x: Tensor, dim: Dims, correction: float | None, keepdim: bool
) -> tuple[Tensor, Tensor]:
    """The variance and the mean, in FLOAT; a sum over dynamic dims counts its elements."""
    keepdim = keepdim and x.rank > 0
    x = ctx.unsqueeze_to(ctx.cast(x, "FLOAT"), 1)
    axes = axes_of(dim, x.rank)
    mean = ctx.reduce("AVG", x, axes, keep_dims=True)
    distance = ctx.elementwise("SUB", x, mean)
    square = ctx.elementwise("PROD", distance, distance)
    mean = ctx.reshape(mean, ctx.result.shape)
    if correction == 0:
        return ctx.reduce("AVG", square, axes, keep_dims=keepdim), mean
    total = ctx.reduce("SUM", square, axes, keep_dims=keepdim)
    lost = 1 if correction is None else correction
    whole = math.floor(lost)
    count = dims.product(tuple(x.shape[a] for a in axes))
    freedom = ctx.size(dims.maximum(count - whole, 0), "FLOAT", total.rank)
    if lost != whole:
        freedom = ctx.elementwise("MAX", ctx.elementwise("SUB", freedom, lost - whole), 0.0)
    return ctx.elementwise("DIV", total, freedom), mean
