# SPDX-License-Identifier: Apache-2.0
"""Elements picked by tensors of indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trtpack.target import Target
from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context
from .nonzero import without_masks
from .refusals import unless_sized_by_data
from .registry import converter

aten = torch.ops.aten
Indices = Sequence["Tensor | None"]


def has_masks(indices: Indices) -> bool:
    """Whether there are boolean masks, which pick as many elements as they have True ones."""
    return any(i is not None and i.dtype == "BOOL" for i in indices)


def _picked(*, indices: Indices, target: Target, **_: object) -> str | None:
    if any(i is not None and i.dtype == "UINT8" for i in indices):
        return "an index of uint8 is a mask to PyTorch, which warns of it; give a bool one"
    if not has_masks(indices):
        return None
    if any(i is not None and i.dtype == "BOOL" and not i.rank for i in indices):
        return "a mask of one element adds a dim of 0 or 1 elements"
    return unless_sized_by_data(target=target)


@converter(aten.index.Tensor, aten._unsafe_index.Tensor, when=_picked)
def index(ctx: Context, self: Tensor, indices: Indices) -> Tensor:
    """index.Tensor(Tensor self, Tensor?[] indices) -> Tensor

    One gather along the indexed dims, which are joined to one for several indices.

    Shapes: indices broadcast; their dims stand where the indexed ones were, or in front where
        those were not side by side. All may be dynamic.
    Dtypes: all; indices int32 or int64, negative ones count from the end; bool ones are masks,
        which pick as many elements as they have true ones.
    Errors: masks of 0 dims or of uint8 are refused, and all masks on TensorRT-RTX and before
        TensorRT 10.
    Source: NumPy's advanced indexing.
    """
    if has_masks(indices):
        return _gathered(ctx, *without_masks(ctx, self, indices))
    return ctx.reshape(_gathered(ctx, self, indices), ctx.result.shape)


def _gathered(ctx: Context, x: Tensor, indices: Indices) -> Tensor:
    place = Placement.of(ctx, x, indices)
    return ctx.gather(place.joined(ctx), place.flat(ctx), place.axis)


@converter(aten.index_select.default)
def index_select(ctx: Context, self: Tensor, dim: int, index: Tensor) -> Tensor:
    """index_select(Tensor self, int dim, Tensor index) -> Tensor"""
    if not self.rank:
        return self
    return ctx.gather(self, ctx.unsqueeze_to(index, 1), dim)


@converter(aten.embedding.default)
def embedding(ctx: Context, weight: Tensor, indices: Tensor, **_: object) -> Tensor:
    """embedding(Tensor weight, Tensor indices, SymInt padding_idx=-1, bool
    scale_grad_by_freq=False, bool sparse=False) -> Tensor

    ``padding_idx`` matters for gradients only.
    """
    return ctx.gather(weight, indices, 0)


@converter(aten.gather.default)
def gather(ctx: Context, self: Tensor, dim: int, index: Tensor, sparse_grad: bool) -> Tensor:
    """gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor

    Shapes: as many dims each; other dims than ``dim`` may be longer in ``self``.
    Dtypes: all; indices int32 or int64.
    Source: torch.gather; GatherMode.ELEMENT.
    """
    if 0 in index.shape:
        return ctx.expand(ctx.scalar(0, self.dtype), index.shape)
    if not self.rank:
        return ctx.reshape(self, index.shape)
    axis = dim % self.rank
    index = ctx.unsqueeze_to(index, 1)
    cut = tuple(
        d if i == axis else n for i, (d, n) in enumerate(zip(self.shape, index.shape, strict=True))
    )
    if cut != self.shape:
        self = ctx.slice(self, (0,) * self.rank, cut)
    return ctx.reshape(ctx.gather(self, index, axis, mode="ELEMENT"), ctx.result.shape)


@converter(aten.take.default)
def take(ctx: Context, self: Tensor, index: Tensor) -> Tensor:
    """take(Tensor self, Tensor index) -> Tensor"""
    count = dims.product(self.shape)
    return ctx.gather(ctx.reshape(self, (count,)), from_start(ctx, index, count), 0)


def from_start(ctx: Context, index: Tensor, size: Dim) -> Tensor:
    """Indices with negative ones, which count from the end, counted from the start."""
    if ctx.is_never_negative(index):
        return index
    if ctx.is_constant(index) and isinstance(size, int):
        value = ctx.value(index)
        return ctx.constant(torch.where(value < 0, value + size, value), "from_start")
    from_end = ctx.elementwise("SUM", index, ctx.size(size, index.dtype, index.rank))
    return ctx.select(ctx.elementwise("LESS", index, 0), from_end, index)


@dataclass(frozen=True)
class Placement:
    """Advanced indexing: which dims are indexed, by what, and where the answer's new dims stand."""

    source: Tensor
    indexed: tuple[int, ...]
    indices: tuple[Tensor, ...]
    order: tuple[int, ...]
    axis: int

    @staticmethod
    def of(ctx: Context, source: Tensor, indices: Indices) -> Placement:
        """Reads the index tensors; dims not indexed side by side come first."""
        indexed = tuple(d for d, i in enumerate(indices) if i is not None)
        adjacent = indexed == tuple(range(indexed[0], indexed[-1] + 1))
        others = [d for d in range(source.rank) if d not in indexed]
        axis = indexed[0] if adjacent else 0
        order = (*others[:axis], *indexed, *others[axis:])
        given = tuple(ctx.cast(i, "INT64") for i in indices if i is not None)
        return Placement(source, indexed, given, order, axis)

    @property
    def sizes(self) -> tuple[Dim, ...]:
        """The sizes of the indexed dims."""
        return tuple(self.source.shape[d] for d in self.indexed)

    @property
    def around(self) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
        """The sizes before and behind the joined dim."""
        shape = [self.source.shape[d] for d in self.order]
        return tuple(shape[: self.axis]), tuple(shape[self.axis + len(self.indexed) :])

    def joined(self, ctx: Context) -> Tensor:
        """The source with its indexed dims side by side and joined to one."""
        before, behind = self.around
        x = ctx.permute(self.source, self.order)
        return ctx.reshape(x, (*before, dims.product(self.sizes), *behind))

    def flat(self, ctx: Context) -> Tensor:
        """One index into the joined dim for each place."""
        given = [from_start(ctx, i, n) for i, n in zip(self.indices, self.sizes, strict=True)]
        if all(ctx.is_constant(i) for i in given) and dims.is_static(self.sizes):
            return ctx.constant(_joined_values([ctx.value(i) for i in given], self.sizes), "index")
        total = given[0]
        for step, size in zip(given[1:], self.sizes[1:], strict=True):
            along = ctx.elementwise("PROD", total, ctx.size(size, total.dtype, total.rank))
            total = ctx.elementwise("SUM", along, step)
        return total


def _joined_values(given: Sequence[torch.Tensor], sizes: Sequence[Dim]) -> torch.Tensor:
    total = given[0]
    for step, size in zip(given[1:], sizes[1:], strict=True):
        assert isinstance(size, int)
        total = total * size + step
    return total
