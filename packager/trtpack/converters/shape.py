# SPDX-License-Identifier: Apache-2.0
"""Views: the same elements in another shape or order, or repeated."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context
from .registry import converter

aten = torch.ops.aten


@converter(
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.view_copy.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.squeeze_copy.default,
    aten.squeeze_copy.dim,
    aten.squeeze_copy.dims,
    aten.unsqueeze_copy.default,
    aten.view_as.default,
    aten.reshape_as.default,
)
def view(ctx: Context, self: Tensor, **_: object) -> Tensor:
    """view(Tensor(a) self, SymInt[] size) -> Tensor(a)

    Also reshape, flatten, squeeze and unsqueeze: PyTorch already says which shape results.

    Shapes: any; sizes may be expressions.
    Dtypes: all.
    """
    return ctx.reshape(self, ctx.result.shape)


@converter(aten.permute.default, aten.permute_copy.default)
def permute(ctx: Context, self: Tensor, dims: Sequence[int]) -> Tensor:
    """permute(Tensor(a) self, int[] dims) -> Tensor(a)"""
    return ctx.permute(self, dims) if self.rank else self


@converter(aten.transpose.int, aten.transpose_copy.int)
def transpose(ctx: Context, self: Tensor, dim0: int, dim1: int) -> Tensor:
    """transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)"""
    if self.rank == 0:
        return self
    order = list(range(self.rank))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return ctx.permute(self, order)


@converter(aten.t.default, aten.t_copy.default, aten.numpy_T.default)
def t(ctx: Context, self: Tensor) -> Tensor:
    """t(Tensor(a) self) -> Tensor(a)"""
    return ctx.permute(self, range(self.rank)[::-1]) if self.rank > 1 else self


@converter(aten.mT.default, aten.adjoint.default)
def matrix_transpose(ctx: Context, self: Tensor) -> Tensor:
    """mT(Tensor(a) self) -> Tensor(a)"""
    return transpose(ctx, self, -2, -1)


@converter(aten.movedim.intlist)
def movedim(
    ctx: Context, self: Tensor, source: Sequence[int], destination: Sequence[int]
) -> Tensor:
    """movedim.intlist(Tensor(a) self, int[] source, int[] destination) -> Tensor(a)"""
    moved = {d % self.rank: s % self.rank for s, d in zip(source, destination, strict=True)}
    others = (axis for axis in range(self.rank) if axis not in moved.values())
    return ctx.permute(self, [moved[i] if i in moved else next(others) for i in range(self.rank)])


@converter(
    aten.expand.default, aten.expand_as.default, aten.broadcast_to.default, aten.expand_copy.default
)
def expand(ctx: Context, self: Tensor, **_: object) -> Tensor:
    """expand(Tensor(a) self, SymInt[] size, *, bool implicit=False) -> Tensor(a)

    Shapes: dims of size 1 are repeated, leading dims added; sizes may be expressions.
    Dtypes: all.
    """
    return ctx.expand(self, ctx.result.shape)


@converter(aten.repeat.default)
def repeat(ctx: Context, self: Tensor, repeats: Sequence[Dim]) -> Tensor:
    """repeat(Tensor self, SymInt[] repeats) -> Tensor

    A slice that wraps around; where only dims of size 1 grow, a broadcast.
    """
    x = ctx.unsqueeze_to(self, len(repeats))
    if all(size == 1 or n == 1 for size, n in zip(x.shape, repeats, strict=True)):
        return ctx.expand(x, ctx.result.shape)
    return ctx.slice(x, (0,) * x.rank, ctx.result.shape, mode="WRAP")


@converter(aten.repeat_interleave.self_int)
def repeat_interleave(
    ctx: Context, self: Tensor, repeats: Dim, dim: int | None, output_size: Dim | None
) -> Tensor:
    """repeat_interleave.self_int(Tensor self, SymInt repeats, int? dim=None, *, SymInt?
    output_size=None) -> Tensor
    """
    axis = self.rank - 1 if dim is None else dim % self.rank
    before, behind = self.shape[: axis + 1], self.shape[axis + 1 :]
    x = ctx.expand(ctx.reshape(self, (*before, 1, *behind)), (*before, repeats, *behind))
    return ctx.reshape(x, ctx.result.shape)


@converter(aten.pixel_shuffle.default)
def pixel_shuffle(ctx: Context, self: Tensor, upscale_factor: int) -> Tensor:
    """pixel_shuffle(Tensor self, int upscale_factor) -> Tensor"""
    *batch, channels, height, width = self.shape
    r, n = upscale_factor, len(batch)
    apart = (*batch, channels // (r * r), r, r, height, width)
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return _apart(ctx, self, apart, order)


@converter(aten.pixel_unshuffle.default)
def pixel_unshuffle(ctx: Context, self: Tensor, downscale_factor: int) -> Tensor:
    """pixel_unshuffle(Tensor self, int downscale_factor) -> Tensor"""
    *batch, channels, height, width = self.shape
    r, n = downscale_factor, len(batch)
    apart = (*batch, channels, height // r, r, width // r, r)
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return _apart(ctx, self, apart, order)


@converter(aten.channel_shuffle.default)
def channel_shuffle(ctx: Context, self: Tensor, groups: int) -> Tensor:
    """channel_shuffle(Tensor self, SymInt groups) -> Tensor"""
    batch, channels, *spatial = self.shape
    apart = (batch, groups, channels // groups, *spatial)
    return _apart(ctx, self, apart, (0, 2, 1, *range(3, len(apart))))


def _apart(ctx: Context, x: Tensor, apart: Sequence[Dim], order: Sequence[int]) -> Tensor:
    """Dims taken apart, put in another order, and joined to the result's."""
    x = ctx.add("shuffle", {"input": x}, reshape_dims=tuple(apart), second_transpose=tuple(order))
    return ctx.reshape(x, ctx.result.shape)
