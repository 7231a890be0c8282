# SPDX-License-Identifier: Apache-2.0
"""How much every old element counts for every new one, as (old, new) matrices of open sizes.

The formulas are PyTorch's, in float32, as its kernels have them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import torch

from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context
from .special import polynomial

Filter = Literal["LINEAR", "CUBIC"]


def resampled(
    ctx: Context, x: Tensor, axis: int, want: Dim, filter: Filter, step: float | None
) -> Tensor:
    """``x`` interpolated along ``axis`` at pixel centres ``step`` old elements apart."""
    have, apart = x.shape[axis], _step(ctx, x.shape[axis], want, step)
    if filter == "LINEAR":
        apart = _copying(ctx, have, want, apart)
    at = ctx.elementwise("SUB", _centres(ctx, want, apart), 0.5)
    if filter == "LINEAR":
        last = ctx.size(have - 1, "FLOAT", 2)
        at = ctx.elementwise("MIN", ctx.elementwise("MAX", at, 0.0), last)
        weights = _hat(ctx, _apart(ctx, have, 0, at))
    else:  # the outermost elements stand for those that are beyond them
        start = [-2 if d == axis else 0 for d in range(x.rank)]
        shape = [n + 4 if d == axis else n for d, n in enumerate(x.shape)]
        x = ctx.slice(x, start, shape, mode="CLAMP")
        weights = _cubic(ctx, _apart(ctx, have + 4, -2, at), -0.75)
    return ctx.product_along(x, ctx.cast(weights, x.dtype), axis)


def antialiased(
    ctx: Context, x: Tensor, axis: int, want: Dim, filter: Filter, step: float | Tensor | None
) -> Tensor:
    """The same with a filter as wide as ``step`` where it is above 1, and weights that sum to 1."""
    have = x.shape[axis]
    apart = [step] if isinstance(step, Tensor) else _step(ctx, have, want, step)
    apart = _copying(ctx, have, want, apart)
    wide = ctx.elementwise("MAX", _sum(ctx, apart), 1.0)
    at = ctx.elementwise("SUB", _centres(ctx, want, apart), 0.5)
    distance = ctx.elementwise("DIV", _apart(ctx, have, 0, at), wide)
    weights = _hat(ctx, distance) if filter == "LINEAR" else _cubic(ctx, distance, -0.5)
    total = ctx.reduce("SUM", weights, 0, keep_dims=True)
    weights = ctx.elementwise("DIV", weights, total)
    return ctx.product_along(x, ctx.cast(weights, x.dtype), axis)


def corner_step(ctx: Context, have: Dim, want: Dim) -> Tensor:
    """How far apart new elements are where the first and the last are the old ones."""
    gaps = ctx.elementwise("MAX", ctx.size(want - 1, "FLOAT", 2), 1.0)
    apart = ctx.elementwise("DIV", ctx.size(have - 1, "FLOAT", 2), gaps)
    several = ctx.elementwise("GREATER", ctx.size(want, "FLOAT", 2), 1.0)
    return ctx.select(several, apart, ctx.scalar(0.0, "FLOAT", 2))


def _step(ctx: Context, have: Dim, want: Dim, step: float | None) -> list[Tensor]:
    """What sums to the step.

    Before TensorRT 10 a number is two that float16 has: 8.6 stores a constant of float32 in float16
    at times (measured), and far from the start a step that is a little off is off by much.
    """
    if step is None:
        return [ctx.elementwise("DIV", ctx.size(have, "FLOAT", 2), ctx.size(want, "FLOAT", 2))]
    if ctx.has("10.0"):
        return [ctx.scalar(step, "FLOAT", 2)]
    first = torch.tensor(step).half().item()
    rest = torch.tensor(step - first).half().item()
    return [ctx.scalar(part, "FLOAT", 2) for part in (first, rest) if part]


def _copying(ctx: Context, have: Dim, want: Dim, step: Sequence[Tensor]) -> list[Tensor]:
    """A step of 1 where the size stays: PyTorch then copies, whatever the scale."""
    same = ctx.elementwise("EQUAL", ctx.size(have, rank=2), ctx.size(want, rank=2))
    copied = [1.0, *[0.0] * (len(step) - 1)]
    return [
        ctx.select(same, ctx.scalar(c, "FLOAT", 2), part)
        for c, part in zip(copied, step, strict=True)
    ]


def _centres(ctx: Context, want: Dim, step: Sequence[Tensor]) -> Tensor:
    """(1, want): the middle of every new element, counted in old ones."""
    place = ctx.cast(ctx.ramp((1, want), (0, 1)), "FLOAT")
    middle = ctx.elementwise("SUM", place, 0.5)
    return _sum(ctx, [ctx.elementwise("PROD", middle, part) for part in step])


def _sum(ctx: Context, parts: Sequence[Tensor]) -> Tensor:
    return functools.reduce(functools.partial(ctx.elementwise, "SUM"), parts)


def _apart(ctx: Context, have: Dim, first: int, at: Tensor) -> Tensor:
    """(have, want): how far each old element is from each new one."""
    place = ctx.cast(ctx.ramp((have, 1), (1, 0), first), "FLOAT")
    return ctx.unary("ABS", ctx.elementwise("SUB", place, at))


def _hat(ctx: Context, distance: Tensor) -> Tensor:
    return ctx.activation("RELU", ctx.elementwise("SUB", 1.0, distance))


def _cubic(ctx: Context, distance: Tensor, a: float) -> Tensor:
    """R. Keys' kernel: one polynomial up to 1, another up to 2, and 0."""
    near = polynomial(ctx, distance, (a + 2, -a - 3, 0.0, 1.0))
    far = polynomial(ctx, ctx.elementwise("MIN", distance, 2.0), (a, -5 * a, 8 * a, -4 * a))
    return ctx.select(ctx.elementwise("LESS", distance, 1.0), near, far)
