# SPDX-License-Identifier: Apache-2.0
"""Tensors joined into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trtpack_runtime.network import Tensor

from .context import Context
from .registry import converter

aten = torch.ops.aten


@converter(aten.cat.default, aten.concat.default)
def cat(ctx: Context, tensors: Sequence[Tensor], dim: int) -> Tensor:
    """cat(Tensor[] tensors, int dim=0) -> Tensor

    Shapes: equal but for ``dim``; empty one-dimensional tensors are left out, as PyTorch does.
    Dtypes: all; operands take the result's type.
    Source: torch.cat.
    """
    kept = [t for t in tensors if t.shape != (0,) or ctx.result.rank == 1]
    return ctx.concatenate([ctx.cast(t, ctx.result.dtype) for t in kept], dim)


@converter(aten.stack.default)
def stack(ctx: Context, tensors: Sequence[Tensor], dim: int) -> Tensor:
    """stack(Tensor[] tensors, int dim=0) -> Tensor

    A concatenation along ``dim``, which is then taken apart; along the last new dim, one before it.
    """
    casted = [ctx.cast(t, ctx.result.dtype) for t in tensors]
    rank, shape = ctx.result.rank, ctx.result.shape
    axis = dim % rank
    if len(casted) == 1 or rank == 1:
        rows = [ctx.reshape(t, (1,) if rank == 1 else shape) for t in casted]
        return ctx.concatenate(rows, 0)
    if axis < rank - 1:
        return ctx.reshape(ctx.concatenate(casted, axis), shape)
    joined = ctx.concatenate(casted, axis - 1)
    apart = (*shape[: axis - 1], shape[axis], shape[axis - 1])
    order = (*range(axis - 1), axis, axis - 1)
    return ctx.add("shuffle", {"input": joined}, reshape_dims=apart, second_transpose=order)
