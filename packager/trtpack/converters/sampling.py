# SPDX-License-Identifier: Apache-2.0
"""Images and volumes read at a grid of points between -1 and 1."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trtpack.target import Target
from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context
from .refusals import first_reason, unless_floats
from .registry import converter

aten = torch.ops.aten
_LINEAR, _NEAREST, _BICUBIC = range(3)
_ZEROS, _REFLECTION = 0, 2
WRONG_BICUBIC = "some of the kernels that TensorRT 8 has for bicubic sampling answer wrong values"
_LARGEST = 2048
TOO_LARGE = f"TensorRT 8 stores sizes in float16 at times, which has not all above {_LARGEST}"


def _sampled(
    *, input: Tensor, grid: Tensor, interpolation_mode: int = 0, target: Target, **_: object
) -> str | None:
    reason = unless_floats(input=input, grid=grid)
    if reason or target.tensorrt_at_least("10.0"):
        return reason
    is_large = any(isinstance(n, int) and n > _LARGEST for n in input.shape[2:])
    return first_reason(
        WRONG_BICUBIC if interpolation_mode == _BICUBIC else None, TOO_LARGE if is_large else None
    )


@converter(
    aten.grid_sampler.default,
    aten.grid_sampler_2d.default,
    aten.grid_sampler_3d.default,
    when=_sampled,
)
def grid_sampler(
    ctx: Context,
    input: Tensor,
    grid: Tensor,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> Tensor:
    """grid_sampler(Tensor input, Tensor grid, int interpolation_mode, int padding_mode, bool
    align_corners) -> Tensor

    Before TensorRT 11, which samples volumes too, the corners around a point of a volume are
    gathered; before TensorRT 10 those of an image too, since some kernels of 8.6 take wrong values
    for what lies outside, and some round float32 to float16 in an engine that has both (measured).

    Shapes: (N, C, H, W) at (N, h, w, 2), (N, C, D, H, W) at (N, d, h, w, 3); any dim may be
        dynamic.
    Dtypes: float16, bfloat16, float32.
    Errors: before TensorRT 10 bicubic sampling is refused, and so are fixed sizes above 2048.
    Source: torch.nn.functional.grid_sample.
    """
    if not ctx.has("11.0" if input.rank == 5 else "10.0"):
        return _gathered(ctx, input, grid, interpolation_mode, padding_mode, align_corners)
    return ctx.add(
        "grid_sample",
        {"input": input, "grid": grid},
        interpolation_mode=("LINEAR", "NEAREST", "CUBIC")[interpolation_mode],
        align_corners=align_corners,
        sample_mode=("FILL", "CLAMP", "REFLECT")[padding_mode],
    )


@dataclass(frozen=True)
class Corner:
    """An element beside every point along one dim, and how much it counts."""

    place: Tensor
    weight: Tensor


def _gathered(
    ctx: Context, x: Tensor, grid: Tensor, mode: int, padding: int, aligned: bool
) -> Tensor:
    """The corners around every point, each times how much it counts."""
    batch, channels, *sizes = x.shape
    points, rank = dims.product(grid.shape[1:-1]), len(sizes)
    flat = ctx.reshape(x, (batch, channels, dims.product(x.shape[2:])))
    rows = ctx.reshape(ctx.cast(grid, "FLOAT"), (batch, points, rank))
    around = []
    for i, size in enumerate(sizes):  # the last coordinate of a point is along the first dim
        at = ctx.slice(rows, (0, 0, rank - 1 - i), (batch, points, 1))
        place = _place(ctx, ctx.reshape(at, (batch, 1, points)), size, padding, aligned)
        around.append(corners(ctx, place, size, mode, padding))
    total = weighed(ctx, flat, around, sizes)
    return ctx.cast(ctx.reshape(total, ctx.result.shape), ctx.result.dtype)


def weighed(
    ctx: Context, flat: Tensor, around: Sequence[Sequence[Corner]], sizes: Sequence[Dim]
) -> Tensor:
    """(N, C, points): the elements at the corners of every point, each times how much it counts.

    ``flat`` is (N, C, product of ``sizes``), and ``around`` has the corners along each of these.
    """
    shape = (*flat.shape[:2], around[0][0].place.shape[2])
    total: Tensor | None = None
    for first, *others in itertools.product(*around):
        index, weight = first.place, first.weight
        for corner, size in zip(others, sizes[1:], strict=True):
            index = _joined(ctx, index, corner.place, size)
            weight = ctx.elementwise("PROD", weight, corner.weight)
        index = ctx.expand(index, shape)
        value = ctx.cast(ctx.gather(flat, index, 2, mode="ELEMENT"), "FLOAT")
        part = ctx.elementwise("PROD", value, weight)
        total = part if total is None else ctx.elementwise("SUM", total, part)
    assert total is not None
    return total


def _place(ctx: Context, at: Tensor, size: Dim, padding: int, aligned: bool) -> Tensor:
    """Points between -1 and 1 counted in elements."""
    whole = ctx.size(size, "FLOAT", 3)
    last = ctx.size(size - 1, "FLOAT", 3)
    half = ctx.elementwise("PROD", ctx.elementwise("SUM", at, 1.0), 0.5)
    place = ctx.elementwise("PROD", half, last if aligned else whole)
    place = place if aligned else ctx.elementwise("SUB", place, 0.5)
    if padding == _ZEROS:
        return place
    if padding == _REFLECTION:
        place = _reflected(ctx, place, last if aligned else whole, 0.0 if aligned else -0.5)
    return _between(ctx, place, last)


def _reflected(ctx: Context, place: Tensor, span: Tensor, first: float) -> Tensor:
    """Places thrown back at ``first`` and ``first + span`` until they lie between."""
    span = ctx.elementwise("MAX", span, 1.0)
    beyond = ctx.unary("ABS", ctx.elementwise("SUB", place, first))
    times = ctx.elementwise("FLOOR_DIV", beyond, span)
    rest = ctx.elementwise("SUB", beyond, ctx.elementwise("PROD", times, span))
    pairs = ctx.elementwise("PROD", ctx.elementwise("FLOOR_DIV", times, 2.0), 2.0)
    rest = ctx.select(
        ctx.elementwise("EQUAL", times, pairs), rest, ctx.elementwise("SUB", span, rest)
    )
    return ctx.elementwise("SUM", rest, first)


def corners(
    ctx: Context, place: Tensor, size: Dim, mode: int = _LINEAR, padding: int = _ZEROS
) -> list[Corner]:
    """The elements beside places (N, 1, points) along a dim of ``size``.

    With zeros for padding, those outside count nothing.
    """
    last = ctx.size(size - 1, "FLOAT", 3)
    if mode == _NEAREST:
        one = ctx.scalar(1.0, "FLOAT", 3)
        return [_corner(ctx, ctx.unary("ROUND", place), one, last, padding)]
    low = ctx.unary("FLOOR", place)
    share = ctx.elementwise("SUB", place, low)
    rest = ctx.elementwise("SUB", 1.0, share)
    high = ctx.elementwise("SUM", low, 1.0)
    return [_corner(ctx, low, rest, last, padding), _corner(ctx, high, share, last, padding)]


def _corner(ctx: Context, place: Tensor, weight: Tensor, last: Tensor, padding: int) -> Corner:
    inside = _between(ctx, place, last)
    if padding == _ZEROS:
        zero = ctx.scalar(0.0, "FLOAT", 3)
        weight = ctx.select(ctx.elementwise("EQUAL", inside, place), weight, zero)
    return Corner(ctx.cast(inside, "INT64"), weight)


def _between(ctx: Context, place: Tensor, last: Tensor) -> Tensor:
    return ctx.elementwise("MIN", ctx.elementwise("MAX", place, 0.0), last)


def _joined(ctx: Context, a: Tensor, b: Tensor, size: Dim) -> Tensor:
    return ctx.elementwise("SUM", ctx.elementwise("PROD", a, ctx.size(size, rank=3)), b)
