# SPDX-License-Identifier: Apache-2.0
"""Regions of feature maps, as detectors sample them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from trtpack.target import Target
from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor
from trtpack_tools.infer.by_data import MOST_BOXES

from .context import Context
from .ranking import ranked_by_comparing
from .refusals import Refused, first_reason, unless_floats, unless_sized_by_data
from .registry import converter

_STEP = 2.0**-13
"""Between the scores of boxes one after the other: exact in float32, and above 0 for all."""


def _suppressible(*, dets: Tensor, iou_threshold: float, target: Target, **_: object) -> str | None:
    return first_reason(
        unless_sized_by_data(target=target),
        None if 0 <= iou_threshold <= 1 else "TensorRT takes overlaps from 0 to 1",
        "there are no boxes" if dets.shape[0] == 0 else None,
    )


@converter("torchvision::nms", when=_suppressible)
def nms(ctx: Context, dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor

    TensorRT's layer gets ranks for scores: it leaves out scores of 0 or less, and does not say
    which of two equal ones comes first. ``batched_nms`` arrives here with its boxes moved apart.

    Shapes: (N, 4) and (N,) to (count,); N may be dynamic, or as many as data says.
    Dtypes: float16, bfloat16, float32; all in float32.
    Errors: more than 5000 boxes, or no known number of them, are refused, since TensorRT looks
        only at the 5000 best; so are TensorRT-RTX, which has no such layer, and TensorRT
        before 10.
    Source: torchvision.ops.nms, whose boxes have x1 < x2 and y1 < y2; NvInfer.h, INMSLayer.
    """
    count = dets.shape[0]
    if ctx.bounds.at_most(count) > MOST_BOXES:
        raise Refused(_too_many(ctx.bounds.at_most(count)))
    rank = ctx.cast(ranked_by_comparing(ctx, scores, 0, largest=True), "FLOAT")
    points = ctx.elementwise("SUB", 1.0, ctx.elementwise("PROD", rank, _STEP))
    kept, _ = ctx.add_all(
        "nms",
        {
            "boxes": ctx.reshape(ctx.cast(dets, "FLOAT"), (1, count, 4)),
            "scores": ctx.reshape(points, (1, count, 1)),
        },
        max_output_boxes_per_class=count,
        iou_threshold=_at_most(iou_threshold),
        score_threshold=0.0,
        bounding_box_format="CORNER_PAIRS",
        indices_type="INT64",
    )
    left = kept.shape[0]
    ctx.bounds.limit(left, ctx.bounds.at_most(count))
    return ctx.reshape(ctx.slice(kept, (0, 2), (left, 1)), (left,))


def _too_many(count: float) -> str:
    how_many = f"here are up to {count:.0f}" if math.isfinite(count) else "nothing bounds them here"
    return (
        f"TensorRT looks at the {MOST_BOXES} best boxes only, {how_many}; torch._check their "
        "number, or keep the best before"
    )


def _at_most(threshold: float) -> float:
    """The largest float32 that is not above: as PyTorch, which compares in float64."""
    rounded = torch.tensor(threshold, dtype=torch.float32)
    below = torch.nextafter(rounded, torch.tensor(-torch.inf))
    return float(rounded if rounded.item() <= threshold else below)


class _Line(NamedTuple):
    """Points along one side of each box: the places they lie between, and how far from the first.

    Each is (boxes, points).
    """

    low: Tensor
    high: Tensor
    fraction: Tensor
    inside: Tensor


def _fixed_samples(
    *,
    input: Tensor,
    rois: Tensor,
    pooled_height: Dim,
    pooled_width: Dim,
    sampling_ratio: int,
    **_: object,
) -> str | None:
    adaptive = "how many samples it takes depends on the boxes; give a sampling_ratio above 0"
    fixed = dims.is_static((pooled_height, pooled_width))
    return first_reason(
        unless_floats(input=input, rois=rois),
        None if sampling_ratio > 0 else adaptive,
        None if fixed else "the size that regions are pooled to has to be fixed",
    )


@converter("torchvision::roi_align", when=_fixed_samples)
def roi_align(
    ctx: Context,
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt
    pooled_width, int sampling_ratio, bool aligned) -> Tensor

    The four pixels around every sample are gathered and weighted; bins are averages of samples.

    Shapes: (N, C, H, W) and (boxes, 5); all may be dynamic, the pooled sizes are fixed.
    Dtypes: float16, bfloat16, float32; halves in float32, as under autocast.
    Errors: ``sampling_ratio`` of 0 or less is refused.
    Source: torchvision's roi_align_kernel: samples up to a pixel outside the map take its border,
        those further outside are 0.
    """
    offset, bins = 0.5 if aligned else 0.0, (pooled_height, pooled_width)
    edges = ctx.elementwise("SUB", _times(ctx, ctx.cast(rois, "FLOAT"), spatial_scale), offset)
    y = _line(ctx, edges, 2, bins[0] * sampling_ratio, input.shape[2], 0.0 if aligned else 1.0)
    x = _line(ctx, edges, 1, bins[1] * sampling_ratio, input.shape[3], 0.0 if aligned else 1.0)
    samples = _sampled(ctx, input, _column(ctx, rois, 0), y, x)
    count, channels = rois.shape[0], input.shape[1]
    grid = (count, bins[0], sampling_ratio, bins[1], sampling_ratio, channels)
    pooled = ctx.reduce("AVG", ctx.reshape(samples, grid), (2, 4), keep_dims=False)
    return ctx.cast(ctx.permute(pooled, (0, 3, 1, 2)), ctx.result.dtype)


def _line(ctx: Context, edges: Tensor, axis: int, count: int, size: Dim, least: float) -> _Line:
    """``count`` points evenly along one side of each box, kept to a map of ``size`` pixels."""
    start = _column(ctx, edges, axis)
    extent = ctx.elementwise("SUB", _column(ctx, edges, axis + 2), start)
    if least:
        extent = ctx.elementwise("MAX", extent, least)
    shares = ctx.constant(((torch.arange(count) + 0.5) / count)[None], f"shares {axis}")
    point = ctx.elementwise("SUM", start, ctx.elementwise("PROD", extent, shares))
    last = ctx.size(size - 1, "INT64", 2)
    beyond = ctx.elementwise("GREATER", point, ctx.cast(ctx.size(size, "INT64", 2), "FLOAT"))
    beyond = ctx.elementwise("OR", beyond, ctx.elementwise("LESS", point, -1.0))
    point = ctx.elementwise("MIN", ctx.elementwise("MAX", point, 0.0), ctx.cast(last, "FLOAT"))
    low = ctx.cast(point, "INT64")
    high = ctx.elementwise("MIN", ctx.elementwise("SUM", low, 1), last)
    inside = ctx.cast(ctx.unary("NOT", beyond), "FLOAT")
    return _Line(low, high, ctx.elementwise("SUB", point, ctx.cast(low, "FLOAT")), inside)


def _sampled(ctx: Context, maps: Tensor, image: Tensor, y: _Line, x: _Line) -> Tensor:
    """(boxes, points down, points across, C): samples between the four pixels around each."""
    batch, channels, height, width = maps.shape
    pixels = ctx.permute(ctx.cast(maps, "FLOAT"), (0, 2, 3, 1))
    pixels = ctx.reshape(pixels, (batch * height * width, channels))
    first = _times(ctx, ctx.cast(image, "INT64"), height)
    count, down = y.low.shape
    across = x.low.shape[1]

    def at(row: Tensor, column: Tensor) -> Tensor:
        start = _times(ctx, ctx.elementwise("SUM", first, row), width)
        start = ctx.reshape(start, (count, down, 1))
        there = ctx.elementwise("SUM", start, ctx.reshape(column, (count, 1, across)))
        return ctx.gather(pixels, there, 0)

    share = ctx.reshape(x.fraction, (count, 1, across, 1))
    above, below = (_between(ctx, at(r, x.low), at(r, x.high), share) for r in (y.low, y.high))
    samples = _between(ctx, above, below, ctx.reshape(y.fraction, (count, down, 1, 1)))
    samples = ctx.elementwise("PROD", samples, ctx.reshape(y.inside, (count, down, 1, 1)))
    return ctx.elementwise("PROD", samples, ctx.reshape(x.inside, (count, 1, across, 1)))


def _between(ctx: Context, a: Tensor, b: Tensor, fraction: Tensor) -> Tensor:
    first = ctx.elementwise("PROD", a, ctx.elementwise("SUB", 1.0, fraction))
    return ctx.elementwise("SUM", first, ctx.elementwise("PROD", b, fraction))


def _column(ctx: Context, boxes: Tensor, number: int) -> Tensor:
    return ctx.slice(boxes, (0, number), (boxes.shape[0], 1))


def _times(ctx: Context, x: Tensor, factor: Dim | float) -> Tensor:
    return x if factor == 1 else ctx.elementwise("PROD", x, ctx.operand(factor, x.dtype, x.rank))
