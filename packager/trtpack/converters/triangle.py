# SPDX-License-Identifier: Apache-2.0
"""Triangles of matrices.

Shapes: any rank, dynamic dims included.
Dtypes: float32, float16, bfloat16, int32, int64, bool.
"""

from __future__ import annotations

import torch

from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context
from .registry import converter

aten = torch.ops.aten


@converter(aten.tril.default)
def tril(ctx: Context, self: Tensor, diagonal: Dim = 0) -> Tensor:
    """tril(Tensor self, SymInt diagonal=0) -> Tensor"""
    above = above_diagonal(ctx, self.shape[-2], self.shape[-1], diagonal)
    return ctx.select(above, ctx.scalar(0, self.dtype, self.rank), self)


@converter(aten.triu.default)
def triu(ctx: Context, self: Tensor, diagonal: Dim = 0) -> Tensor:
    """triu(Tensor self, SymInt diagonal=0) -> Tensor"""
    kept = above_diagonal(ctx, self.shape[-2], self.shape[-1], diagonal - 1)
    return ctx.select(kept, self, ctx.scalar(0, self.dtype, self.rank))


def above_diagonal(ctx: Context, rows: Dim, columns: Dim, diagonal: Dim) -> Tensor:
    """Truth values of shape (rows, columns): whether ``column - row > diagonal``."""
    if isinstance(rows, int) and isinstance(columns, int) and isinstance(diagonal, int):
        ones = torch.ones(rows, columns, dtype=torch.bool)
        return ctx.constant(ones.triu(diagonal + 1), "triangle")
    distance = ctx.ramp((rows, columns), (-1, 1))
    return ctx.elementwise("GREATER", distance, ctx.size(diagonal, "INT64", 2))
