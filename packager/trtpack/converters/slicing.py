# SPDX-License-Identifier: Apache-2.0
"""Parts of a tensor: slices, pieces, diagonals, reversed and rotated orders."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim, Expr
from trtpack_runtime.network import Tensor

from .context import Context
from .registry import converter

aten = torch.ops.aten


@converter(aten.slice.Tensor, aten.slice_copy.Tensor)
def slice_(
    ctx: Context, self: Tensor, dim: int, start: Dim | None, end: Dim | None, step: int
) -> Tensor:
    """slice.Tensor(Tensor(a) self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt
    step=1) -> Tensor(a)

    The length is PyTorch's own, so only the start has to be found.

    Shapes: any; bounds may be negative, out of range, or expressions.
    Dtypes: all.
    Source: torch.Tensor.__getitem__ with a slice.
    """
    dim %= self.rank
    size = ctx.result.shape[dim]
    if size == self.shape[dim] and step == 1:
        return self
    first = first_index(ctx, start, self.shape[dim])
    return part(ctx, self, dim, first, size, step)


@converter(aten.select.int, aten.select_copy.int)
def select(ctx: Context, self: Tensor, dim: int, index: Dim) -> Tensor:
    """select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)

    A slice and a reshape, which TensorRT joins with its neighbours, as it does not a gather.
    """
    dim %= self.rank
    return _taken(ctx, self, dim, first_index(ctx, index, self.shape[dim]))


@converter(aten.unbind.int, aten.unbind_copy.int)
def unbind(ctx: Context, self: Tensor, dim: int) -> tuple[Tensor, ...]:
    """unbind.int(Tensor(a -> *) self, int dim=0) -> Tensor(a)[]"""
    axis = dim % self.rank
    return tuple(_taken(ctx, self, axis, i) for i in range(len(ctx.results)))


def _taken(ctx: Context, x: Tensor, dim: int, index: Dim) -> Tensor:
    """One element along ``dim``, which goes."""
    return ctx.reshape(part(ctx, x, dim, index, 1), (*x.shape[:dim], *x.shape[dim + 1 :]))


@converter(
    aten.split.Tensor,
    aten.split_copy.Tensor,
    aten.split_with_sizes.default,
    aten.split_with_sizes_copy.default,
    aten.unsafe_split.Tensor,
    aten.unsafe_split_with_sizes.default,
    aten.chunk.default,
    aten.unsafe_chunk.default,
    aten.tensor_split.sections,
    aten.tensor_split.indices,
)
def split(ctx: Context, self: Tensor, dim: int, **_: object) -> tuple[Tensor, ...]:
    """split.Tensor(Tensor(a -> *) self, SymInt split_size, int dim=0) -> Tensor(a)[]

    Also chunk: PyTorch already says how long the pieces are.
    """
    dim %= self.rank
    pieces: list[Tensor] = []
    start: Dim = 0
    for result in ctx.results:
        size = result.shape[dim]
        whole = size == self.shape[dim]
        pieces.append(self if whole else part(ctx, self, dim, start, size))
        start = dims.add(start, size)
    return tuple(pieces)


@converter(aten.narrow.default, aten.narrow_copy.default)
def narrow(ctx: Context, self: Tensor, dim: int, start: Dim, length: Dim) -> Tensor:
    """narrow(Tensor(a) self, int dim, SymInt start, SymInt length) -> Tensor(a)"""
    dim %= self.rank
    return part(ctx, self, dim, first_index(ctx, start, self.shape[dim]), length)


@converter(aten.flip.default)
def flip(ctx: Context, self: Tensor, dims: Sequence[int]) -> Tensor:
    """flip(Tensor self, int[] dims) -> Tensor"""
    turned = {d % self.rank for d in dims} if self.rank else set()
    if not turned:
        return self
    start = [size - 1 if d in turned else 0 for d, size in enumerate(self.shape)]
    stride = [-1 if d in turned else 1 for d in range(self.rank)]
    return ctx.slice(self, start, self.shape, stride)


@converter(aten.roll.default)
def roll(ctx: Context, self: Tensor, shifts: Sequence[Dim], dims: Sequence[int]) -> Tensor:
    """roll(Tensor self, SymInt[1] shifts, int[1] dims=[]) -> Tensor

    A slice that starts ``shift`` before the end and wraps around; without dims, of all elements in
    one row.
    """
    if not dims:
        row = ctx.reshape(self, (_count(self),))
        return ctx.reshape(roll(ctx, row, shifts, [0]), self.shape) if self.rank else self
    start: list[Dim] = [0] * self.rank
    for shift, dim in zip(shifts, dims, strict=True):
        start[dim] = _remainder(start[dim] - shift, self.shape[dim])
    return ctx.slice(self, start, self.shape, mode="WRAP")


@converter(aten.diagonal.default, aten.diagonal_copy.default)
def diagonal(ctx: Context, self: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
    """diagonal(Tensor(a) self, int offset=0, int dim1=0, int dim2=1) -> Tensor(a)

    The matrices are laid out in a row, of which every (columns + 1)-th element is taken.
    """
    first, second = dim1 % self.rank, dim2 % self.rank
    batch = [d for d in range(self.rank) if d not in (first, second)]
    rows, columns = self.shape[first], self.shape[second]
    lead = tuple(self.shape[d] for d in batch)
    flat = ctx.add(
        "shuffle",
        {"input": self},
        first_transpose=(*batch, first, second),
        reshape_dims=(*lead, rows * columns),
    )
    length = (
        dims.minimum(rows, columns - offset) if offset > 0 else dims.minimum(rows + offset, columns)
    )
    start = offset if offset >= 0 else -offset * columns
    return part(ctx, flat, len(lead), start, length, columns + 1)


@converter(aten.unfold.default, aten.unfold_copy.default)
def unfold(ctx: Context, self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """unfold(Tensor(a) self, int dimension, int size, int step) -> Tensor(a)"""
    axis = dimension % max(self.rank, 1)
    if not self.rank:
        return ctx.reshape(self, ctx.result.shape)
    windows = ctx.ramp((ctx.result.shape[axis], size), (step, 1))
    order = (*range(axis + 1), *range(axis + 2, self.rank + 1), axis + 1)
    return ctx.permute(ctx.gather(self, windows, axis), order)


def part(ctx: Context, x: Tensor, dim: int, start: Dim, size: Dim, step: Dim = 1) -> Tensor:
    """``size`` elements of ``x`` along ``dim``, every ``step``-th from ``start`` on."""
    starts: list[Dim] = [0] * x.rank
    steps: list[Dim] = [1] * x.rank
    sizes = list(x.shape)
    starts[dim], sizes[dim], steps[dim] = start, size, step
    return ctx.slice(x, starts, sizes, steps)


def first_index(ctx: Context, start: Dim | None, size: Dim) -> Dim:
    """A start counted from 0 and brought into range, as Python does for slices.

    Where a size is dynamic, ``torch.export`` has settled whether the start is ever within it.
    """
    if start is None:
        return 0
    if isinstance(start, int) and not isinstance(size, int):
        return 0 if abs(start) > ctx.bounds.at_most(size) else start + size * (start < 0)
    first = start + size if _counts_from_end(start) else start
    return min(max(first, 0), size) if isinstance(first, int) and isinstance(size, int) else first


def _counts_from_end(index: Dim) -> bool:
    """Whether an index is negative; of an expression, all its coefficients are."""
    if isinstance(index, Expr):
        return all(coefficient < 0 for _, coefficient in index.terms)
    return index < 0


def _count(x: Tensor) -> Dim:
    return dims.product(x.shape)


def _remainder(value: Dim, size: Dim) -> Dim:
    return dims.mod(value, size) if size != 0 else 0
