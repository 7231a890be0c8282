# SPDX-License-Identifier: Apache-2.0
"""Convolutions that read their inputs beside the places of a kernel."""

from __future__ import annotations

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context
from .refusals import first_reason, unless_floats
from .registry import converter
from .sampling import corners, weighed


def _fixed_kernel(
    *, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, **_: object
) -> str | None:
    channels = [t.shape[1] for t in (input, offset, mask) if t.rank > 1]
    fixed = dims.is_static((*weight.shape, *channels))
    return first_reason(
        unless_floats(input=input, weight=weight, offset=offset, mask=mask),
        None if fixed else "its kernel and channels have to be fixed",
    )


@converter("torchvision::deform_conv2d", when=_fixed_kernel)
def deform_conv2d(
    ctx: Context,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    """deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt
    stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w,
    SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor

    The pixels around every place of the kernel are gathered and weighted, and multiplied by the
    kernel as one matrix.

    Shapes: (N, C, H, W) with offsets (N, 2 * offset_groups * kh * kw, h, w); N, H and W may be
        dynamic.
    Dtypes: float16, bfloat16, float32; halves in float32, as under autocast.
    Source: torchvision's deform_conv2d_kernel: what lies outside the image is 0.
    """
    batch, places = input.shape[0] * offset_groups, (*weight.shape[2:], *offset.shape[2:])
    around = [
        corners(ctx, _moved(ctx, offset, batch, places, axis, *steps), input.shape[2 + axis])
        for axis, steps in enumerate(((dilation_h, stride_h, pad_h), (dilation_w, stride_w, pad_w)))
    ]
    channels, pixels = input.shape[1], dims.product(input.shape[2:])
    flat = ctx.reshape(input, (batch, channels // offset_groups, pixels))
    values = weighed(ctx, flat, around, input.shape[2:])
    if use_mask:
        share = ctx.reshape(ctx.cast(mask, "FLOAT"), (batch, 1, dims.product(places)))
        values = ctx.elementwise("PROD", values, share)
    return _multiplied(ctx, values, weight, bias, groups)


def _moved(
    ctx: Context,
    offset: Tensor,
    batch: Dim,
    places: tuple[Dim, ...],
    axis: int,
    dilation: int,
    stride: int,
    pad: int,
) -> Tensor:
    """(batch, 1, places): where along ``axis`` each element of the kernel reads for each result."""
    steps = (dilation, 0, stride, 0) if axis == 0 else (0, dilation, 0, stride)
    unmoved = ctx.reshape(ctx.ramp(places, steps, -pad), (1, 1, dims.product(places)))
    pairs = ctx.reshape(offset, (batch, dims.product(places[:2]), 2, dims.product(places[2:])))
    by = ctx.slice(pairs, (0, 0, axis, 0), (*pairs.shape[:2], 1, pairs.shape[3]))
    by = ctx.cast(ctx.reshape(by, (batch, 1, dims.product(places))), "FLOAT")
    return ctx.elementwise("SUM", ctx.cast(unmoved, "FLOAT"), by)


def _multiplied(ctx: Context, values: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """The product of the kernel with what it reads, for each group of channels."""
    batch, count, height, width = ctx.result.shape
    rows = dims.product(weight.shape[1:])
    read = ctx.reshape(values, (batch, groups, rows, height * width))
    kernel = ctx.reshape(ctx.cast(weight, "FLOAT"), (1, groups, weight.shape[0] // groups, rows))
    product = ctx.reshape(ctx.matmul(kernel, read), (batch, count, height, width))
    total = ctx.elementwise("SUM", product, ctx.reshape(ctx.cast(bias, "FLOAT"), (1, count, 1, 1)))
    return ctx.cast(total, ctx.result.dtype)
