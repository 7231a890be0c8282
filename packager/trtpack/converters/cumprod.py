# SPDX-License-Identifier: Apache-2.0
"""Running products."""

from __future__ import annotations

import torch

from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .registry import converter

aten = torch.ops.aten


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
