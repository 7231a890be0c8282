# SPDX-License-Identifier: Apache-2.0
"""Running sums and products."""

from __future__ import annotations

import torch

from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .registry import converter

aten = torch.ops.aten


@converter(aten.cumsum.default)
def cumsum(ctx: Context, self: Tensor, dim: int, dtype: torch.dtype | None) -> Tensor:
    """cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor

    Before TensorRT 10.8 a product with a triangular matrix, whose whole numbers are exact up to
    2**24.

    Shapes: any; all dims may be dynamic.
    Dtypes: float16, bfloat16 (summed in float32), float32, int32, int64, bool.
    Source: torch.cumsum; ICumulativeLayer.
    """
    result = ctx.result.dtype
    if not self.rank:
        return ctx.cast(self, result)
    wide = "FLOAT" if result in FLOATS or not ctx.has("10.8") else result
    x = ctx.cast(ctx.cast(self, result), wide)
    if ctx.has("10.8"):
        out = ctx.add(
            "cumulative",
            {"input": x},
            op="SUM",
            axis=dim % self.rank,
            exclusive=False,
            reverse=False,
        )
    else:
        size = self.shape[dim]
        upto = ctx.elementwise("GREATER", ctx.ramp((size, size), (-1, 1)), -1)
        out = ctx.product_along(x, ctx.cast(upto, wide), dim)
    return ctx.cast(out, result)


@converter(aten.cumprod.default)
def cumprod(ctx: Context, self: Tensor, dim: int, dtype: torch.dtype | None) -> Tensor:
    """cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor

    Every element times all before it: (size along ``dim``) squared steps.
    """
    result = ctx.result.dtype
    if not self.rank:
        return ctx.cast(self, result)
    axis, wide = dim % self.rank, "FLOAT" if result in FLOATS else result
    x = ctx.cast(ctx.cast(self, result), wide)
    size, behind = x.shape[axis], (1,) * (x.rank - axis - 1)
    table = ctx.ramp((size, size, *behind), (1, -1, *(0 for _ in behind)))
    rows = ctx.reshape(x, (*x.shape[:axis], 1, size, *x.shape[axis + 1 :]))
    factors = ctx.select(ctx.elementwise("GREATER", table, -1), rows, ctx.scalar(1, wide))
    return ctx.cast(ctx.reduce("PROD", factors, axis + 1, keep_dims=False), result)
