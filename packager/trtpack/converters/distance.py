# SPDX-License-Identifier: Apache-2.0
"""Distances between rows."""

from __future__ import annotations

import torch

from trtpack_runtime.network import Tensor

from .context import Context
from .reduce import vector_norm
from .refusals import Refused
from .registry import converter

aten = torch.ops.aten
_USE_PRODUCT = 1
_LARGEST_DIRECT = 25


@converter(aten._cdist_forward.default)
def cdist(ctx: Context, x1: Tensor, x2: Tensor, p: float, compute_mode: int | None) -> Tensor:
    """_cdist_forward(Tensor x1, Tensor x2, float p, int? compute_mode) -> Tensor

    Between more than 25 rows the Euclidean distance is a product, as in PyTorch:
    ``sqrt(|a| ** 2 + |b| ** 2 - 2 * a @ b)``, else the norm of the differences.

    Shapes: (..., P, M) and (..., R, M) to (..., P, R), dynamic dims included.
    Dtypes: float32, float16, bfloat16.
    """
    a, b = ctx.cast(x1, "FLOAT"), ctx.cast(x2, "FLOAT")
    few = all(isinstance(x.shape[-2], int) and x.shape[-2] <= _LARGEST_DIRECT for x in (a, b))
    if p != 2 or compute_mode not in (None, 0, _USE_PRODUCT) or (few and not compute_mode):
        rows = ctx.reshape(a, (*a.shape[:-1], 1, a.shape[-1]))
        columns = ctx.reshape(b, (*b.shape[:-2], 1, *b.shape[-2:]))
        apart = ctx.elementwise("SUB", rows, columns)
        return ctx.cast(vector_norm(ctx, apart, p, -1, False), ctx.result.dtype)
    products = ctx.elementwise("PROD", ctx.matmul(a, b, transpose_b=True), -2.0)
    here, there = (
        ctx.reduce("SUM", ctx.elementwise("PROD", x, x), -1, keep_dims=True) for x in (a, b)
    )
    across = ctx.reshape(there, (*b.shape[:-2], 1, b.shape[-2]))
    square = ctx.elementwise("SUM", ctx.elementwise("SUM", products, here), across)
    return ctx.cast(ctx.unary("SQRT", ctx.activation("RELU", square)), ctx.result.dtype)


@converter(aten.dist.default)
def dist(ctx: Context, self: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """dist(Tensor self, Tensor other, Scalar p=2) -> Tensor

    Shapes: any two that broadcast.
    Dtypes: float32, float16, bfloat16.
    """
    apart = ctx.elementwise("SUB", ctx.cast(self, "FLOAT"), ctx.cast(other, "FLOAT"))
    return ctx.cast(vector_norm(ctx, apart, p, None, False), ctx.result.dtype)


@converter(aten._pdist_forward.default)
def pdist(ctx: Context, self: Tensor, p: float = 2) -> Tensor:
    """_pdist_forward(Tensor self, float p=2) -> Tensor

    Between every row and each behind it.

    Shapes: (N, M) to (N * (N - 1) / 2,); N is static.
    Dtypes: float32, float16, bfloat16.
    """
    count = self.shape[0]
    if not isinstance(count, int):
        raise Refused("the number of rows is dynamic, and with it which pairs there are")
    first, second = (
        ctx.gather(ctx.cast(self, "FLOAT"), ctx.constant(rows, f"row {i} of pairs"), 0)
        for i, rows in enumerate(torch.triu_indices(count, count, 1))
    )
    apart = ctx.elementwise("SUB", first, second)
    return ctx.cast(vector_norm(ctx, apart, p, -1, False), ctx.result.dtype)
