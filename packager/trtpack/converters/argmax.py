# SPDX-License-Identifier: Apache-2.0
"""The largest or smallest element along a dim, and where it is.

Shapes: any rank, any dim, dynamic ones included; no ``dim`` means the flattened tensor.
Dtypes: float32, float16, bfloat16, int32, int64, bool, uint8; the indices are int64. Which of
several equal elements is found is unspecified, as in PyTorch.
NaN: of floats, the least is the greatest of the negated ones, so that a NaN is found either way.
Source: NvInfer.h, ITopKLayer: at least two dims, along one of the last four.
"""

from __future__ import annotations

import torch

from trtpack_runtime import dims
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import needs_wider_signed_integers
from .registry import converter
from .sort import SMALL, ranked

aten = torch.ops.aten
_LAST_DIMS = 4


@converter(aten.argmax.default, when=needs_wider_signed_integers)
def argmax(ctx: Context, self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor"""
    return _place(ctx, "MAX", self, dim)


@converter(aten.argmin.default, when=needs_wider_signed_integers)
def argmin(ctx: Context, self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """argmin(Tensor self, int? dim=None, bool keepdim=False) -> Tensor"""
    if self.dtype in FLOATS:
        return _place(ctx, "MAX", ctx.unary("NEG", self), dim)
    return _place(ctx, "MIN", self, dim)


@converter(aten.max.dim, when=needs_wider_signed_integers)
def max_dim(ctx: Context, self: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    return _best(ctx, "MAX", self, dim)


@converter(aten.min.dim, when=needs_wider_signed_integers)
def min_dim(ctx: Context, self: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """min.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    if self.dtype not in FLOATS:
        return _best(ctx, "MIN", self, dim)
    values, indices = _best(ctx, "MAX", ctx.unary("NEG", self), dim)
    return ctx.unary("NEG", values), indices


def _place(ctx: Context, op: str, x: Tensor, dim: int | None) -> Tensor:
    if dim is None:
        x, dim = ctx.reshape(x, (dims.product(x.shape),)), 0
    return _best(ctx, op, x, dim)[1]


def _best(ctx: Context, op: str, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The values and their indices, in the shape of PyTorch's result."""
    if x.dtype not in FLOATS and (x.dtype in SMALL or not ctx.has("10.0")):
        return _found(ctx, op, x, dim)
    rank = max(x.rank, 1)
    axis = dim % rank - rank
    x = ctx.unsqueeze_to(x, 2)
    order = list(range(x.rank))
    if -axis > _LAST_DIMS:
        order[axis], order[-1] = order[-1], order[axis]
        axis = -1
    values, indices = ranked(
        ctx,
        op,
        ctx.permute(x, order),
        1,
        axis % x.rank,
        indices_type="INT64" if ctx.has("10.14") else None,
    )
    values, indices = ctx.permute(values, order), ctx.permute(indices, order)
    shape = ctx.result.shape
    return ctx.reshape(values, shape), ctx.cast(ctx.reshape(indices, shape), "INT64")


def _found(ctx: Context, op: str, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The same of types that this TensorRT has no top-k of: the first that is like the best."""
    whole = ctx.unsqueeze_to(ctx.cast(x, "INT32") if x.dtype in SMALL else x, 1)
    axis = dim % whole.rank
    best = ctx.reduce(op, whole, axis, keep_dims=True)
    size, along = whole.shape[axis], [int(d == axis) for d in range(whole.rank)]
    places = ctx.ramp([n if one else 1 for n, one in zip(whole.shape, along, strict=True)], along)
    others = ctx.size(size, rank=whole.rank)
    places = ctx.select(ctx.elementwise("EQUAL", whole, best), places, others)
    place = ctx.reduce("MIN", places, axis, keep_dims=True)
    value = ctx.cast(ctx.reshape(best, ctx.result.shape), x.dtype)
    return value, ctx.reshape(place, ctx.result.shape)
