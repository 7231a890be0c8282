# SPDX-License-Identifier: Apache-2.0
"""Elements in order of size."""

from __future__ import annotations

from typing import Any

import torch

from trtpack_runtime.dims import Dim
from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .ranking import ordered_by_comparing, too_many_comparisons, unless_too_many
from .registry import converter
from .slicing import part

aten = torch.ops.aten

LARGEST_K = 3840
"""As many elements as TensorRT puts in order, in every release."""

SMALL = ("BOOL", "UINT8", "INT8")
"""Types without a top-k of their own, which every wider one holds exactly."""


def _few(*, self: Tensor, k: Dim = 1, dim: int = -1, **_: object) -> str | None:
    if _has_top_k(self, k):
        return None
    return too_many_comparisons(self, dim)


def too_long(*, self: Tensor, dim: int = -1, **_: object) -> str | None:
    """Refuses to put all elements along ``dim`` in order where that takes too long."""
    return _few(self=self, k=self.shape[dim], dim=dim) if self.rank else None


def _has_top_k(x: Tensor, k: Dim) -> bool:
    return not x.rank or (isinstance(k, int) and k <= LARGEST_K)


def ranked(
    ctx: Context, op: str, x: Tensor, k: Dim, axis: int, **more: Any
) -> tuple[Tensor, Tensor]:
    """The ``k`` largest or smallest along ``axis`` and their indices.

    TensorRT 8.6 answers the index -1 for -inf among the largest (measured; no release documents
    it). Before 10.0 infinities therefore count as the last finite number, and the values are
    gathered.
    """
    guarded = x.dtype in FLOATS and not ctx.has("10.0")
    if guarded:
        last = torch.finfo(getattr(torch, DTYPES[x.dtype].torch)).max
        bounded = ctx.elementwise(op, x, -last if op == "MAX" else last)
    else:
        bounded = x
    values, indices = ctx.add_all("topk", {"input": bounded}, op=op, k=k, axes=(axis,), **more)
    if guarded:
        values = ctx.gather(x, indices, axis, mode="ELEMENT")
    return values, indices


@converter(aten.topk.default, when=_few)
def topk(
    ctx: Context, self: Tensor, k: int, dim: int, largest: bool, sorted: bool
) -> tuple[Tensor, Tensor]:
    """topk(Tensor self, SymInt k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor
    values, Tensor indices)

    Top-k where the count is a number of at most 3840, else by comparing.

    Shapes: any; all sizes and the count may be dynamic.
    Dtypes: float16, bfloat16, float32, int32, int64; bool and uint8 by way of wider ones.
    Errors: more than 3840 elements of a large tensor are refused.
    Source: torch.topk; ITopKLayer. Of equal elements, either may come first.
    """
    return ordered(ctx, self, k, dim, largest)


@converter(aten.sort.default, when=too_long)
def sort(ctx: Context, self: Tensor, dim: int, descending: bool) -> tuple[Tensor, Tensor]:
    """sort(Tensor self, int dim=-1, bool descending=False) -> (Tensor values, Tensor indices)"""
    return ordered(ctx, self, self.shape[dim] if self.rank else 1, dim, descending)


@converter(aten.sort.stable, when=too_long)
def sort_stable(
    ctx: Context, self: Tensor, stable: bool | None, dim: int, descending: bool
) -> tuple[Tensor, Tensor]:
    """sort.stable(Tensor self, *, bool? stable, int dim=-1, bool descending=False) -> (Tensor
    values, Tensor indices)
    """
    return sort(ctx, self, dim, descending)


@converter(aten.argsort.default, when=too_long)
def argsort(ctx: Context, self: Tensor, dim: int, descending: bool) -> Tensor:
    """argsort(Tensor self, int dim=-1, bool descending=False) -> Tensor"""
    return sort(ctx, self, dim, descending)[1]


@converter(aten.argsort.stable, when=too_long)
def argsort_stable(ctx: Context, self: Tensor, stable: bool, dim: int, descending: bool) -> Tensor:
    """argsort.stable(Tensor self, *, bool stable, int dim=-1, bool descending=False) -> Tensor"""
    return sort(ctx, self, dim, descending)[1]


def _short_columns(*, self: Tensor, **_: object) -> str | None:
    return too_long(self=self, dim=0)


@converter(aten.msort.default, when=_short_columns)
def msort(ctx: Context, self: Tensor) -> Tensor:
    """msort(Tensor self) -> Tensor"""
    return sort(ctx, self, 0, False)[0]


@converter(aten.kthvalue.default, when=_few)
def kthvalue(
    ctx: Context, self: Tensor, k: Dim, dim: int = -1, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """kthvalue(Tensor self, SymInt k, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor
    indices)

    The last of the ``k`` smallest. Of equal elements, either index may be answered.
    """
    if not self.rank:
        return self, ctx.scalar(0, "INT64")
    axis = dim % self.rank
    lowest = ordered(ctx, self, k, dim, largest=False)
    value, place = (ctx.reshape(part(ctx, t, axis, k - 1, 1), ctx.result.shape) for t in lowest)
    return value, place


def ordered(ctx: Context, x: Tensor, k: Dim, dim: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The first ``k`` in order; TensorRT wants two dims and one of the last four."""
    rank = x.rank
    axis = dim % max(rank, 1)
    order = _ordered_type(ctx, x)
    if ctx.bounds.only_data_tells(k) and ctx.bounds.at_most(k) <= LARGEST_K:
        return _ordered_of_padded(ctx, x, k, axis, largest)
    if not _has_top_k(x, k) or not (ctx.has("10.0") or order in FLOATS):
        unless_too_many(ctx, x, axis)
        values, indices = ordered_by_comparing(ctx, ctx.cast(x, order), k, axis, largest=largest)
        return ctx.cast(values, x.dtype), indices
    last = [*(d for d in range(rank) if d != axis), axis]
    move = rank - axis > 4
    rows = ctx.unsqueeze_to(ctx.cast(ctx.permute(x, last) if move else x, order), 2)
    along = rows.rank - 1 if move or rank < 2 else axis
    values, indices = ranked(ctx, "MAX" if largest else "MIN", rows, k, along)
    answers = []
    for out in (ctx.cast(values, x.dtype), ctx.cast(indices, "INT64")):
        back = ctx.permute(out, _inverse(last)) if move else out
        answers.append(ctx.reshape(back, (k,) if rank else ()) if rank < 2 else back)
    return answers[0], answers[1]


def _ordered_type(ctx: Context, x: Tensor) -> str:
    """The type that elements are put in order in."""
    whole = "INT32" if ctx.has("10.0") else "FLOAT"
    return whole if x.dtype in SMALL else x.dtype


def _ordered_of_padded(
    ctx: Context, x: Tensor, k: Dim, axis: int, largest: bool
) -> tuple[Tensor, Tensor]:
    """The first ``k`` of at most 3840, which only the data tells: those of enough, with the last
    there can be put behind."""
    most = int(ctx.bounds.at_most(k))
    dtype = _ordered_type(ctx, x)
    filling = ctx.expand(
        ctx.scalar(_last(dtype, largest), dtype, x.rank),
        tuple(most if i == axis else size for i, size in enumerate(x.shape)),
    )
    padded = ctx.concatenate([ctx.cast(x, dtype), filling], axis)
    values, places = (part(ctx, t, axis, 0, k) for t in ordered(ctx, padded, most, axis, largest))
    return ctx.cast(values, x.dtype), places


def _last(dtype: str, largest: bool) -> float:
    """What comes after all others in order."""
    torch_dtype = getattr(torch, DTYPES[dtype].torch)
    if dtype in FLOATS:
        return -torch.inf if largest else torch.inf
    limits = torch.iinfo(torch_dtype)
    return limits.min if largest else limits.max


def _inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)
