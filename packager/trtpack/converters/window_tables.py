# SPDX-License-Identifier: Apache-2.0
"""Where adaptive windows lie along a dim: window i from floor(i*n/out) to ceil((i+1)*n/out)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context

_OPERATIONS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "SUM": torch.add,
    "SUB": torch.sub,
    "PROD": torch.mul,
    "FLOOR_DIV": torch.floor_divide,
    "MIN": torch.minimum,
    "GREATER": torch.gt,
    "LESS": torch.lt,
    "AND": torch.logical_and,
}


def elements(ctx: Context, size: Dim, count: Dim) -> Tensor:
    """(count, longest): the indices of every window, its last one repeated in shorter windows."""
    start, stop = _bounds(ctx, size, count)
    index = whole(ctx, "SUM", start, ctx.ramp((1, _longest(size, count)), (0, 1)))
    return whole(ctx, "MIN", index, whole(ctx, "SUB", stop, ctx.scalar(1, "INT64", 2)))


def averaging(ctx: Context, dtype: str, size: Dim, count: Dim) -> Tensor:
    """A (size, count) matrix whose columns average the windows."""
    start, stop = (ctx.reshape(bound, (1, count)) for bound in _bounds(ctx, size, count))
    place = ctx.ramp((size, 1), (1, 0))
    reached = whole(ctx, "LESS", whole(ctx, "SUB", start, ctx.scalar(1, "INT64", 2)), place)
    inside = ctx.cast(whole(ctx, "AND", reached, whole(ctx, "GREATER", stop, place)), "FLOAT")
    length = ctx.cast(whole(ctx, "SUB", stop, start), "FLOAT")
    return ctx.cast(ctx.elementwise("DIV", inside, length), dtype)


def whole(ctx: Context, op: str, a: Tensor, b: Tensor) -> Tensor:
    """``elementwise`` on tables of whole numbers, evaluated now where both are constants."""
    if ctx.is_constant(a) and ctx.is_constant(b):
        return ctx.constant(_OPERATIONS[op](ctx.value(a), ctx.value(b)), op.lower())
    return ctx.elementwise(op, a, b)


def _bounds(ctx: Context, size: Dim, count: Dim) -> tuple[Tensor, Tensor]:
    """(count, 1) each: the first index of every window, and the one behind its last."""
    parts = ctx.size(count, "INT64", 2)
    first = ctx.ramp((count, 1), (size, 0))
    behind = ctx.ramp((count, 1), (size, 0), size + count - 1)
    return whole(ctx, "FLOOR_DIV", first, parts), whole(ctx, "FLOOR_DIV", behind, parts)


def _longest(size: Dim, count: Dim) -> Dim:
    if isinstance(size, int) and isinstance(count, int):
        return max(-(-(i + 1) * size // count) - i * size // count for i in range(count))
    return dims.floordiv(size + count - 1, count) + 1
