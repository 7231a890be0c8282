# SPDX-License-Identifier: Apache-2.0
"""Convolution and transposed convolution in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trtpack_runtime import dims
from trtpack_runtime.network import Tensor

from .context import Context
from .refusals import first_reason, unless_floats
from .registry import converter

aten = torch.ops.aten
Ints = tuple[int, ...]


@dataclass(frozen=True)
class _Window:
    """What a kernel does along every spatial dim."""

    stride: Ints
    padding: Ints
    dilation: Ints
    output_padding: Ints

    def as_image(self) -> _Window:
        """The same along the second of two dims; the first has size 1."""
        return _Window(
            (1, *self.stride), (0, *self.padding), (1, *self.dilation), (0, *self.output_padding)
        )


def _of_known_channels(*, input: Tensor, weight: Tensor, **others: object) -> str | None:
    known = dims.is_static((*weight.shape, input.shape[1]))
    return first_reason(
        unless_floats(input=input, weight=weight, **others),
        None if known else "the number of channels or the kernel's size is dynamic",
    )


@converter(aten.convolution.default, when=_of_known_channels)
def convolution(
    ctx: Context,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """convolution(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride, SymInt[] padding,
    SymInt[] dilation, bool transposed, SymInt[] output_padding, SymInt groups) -> Tensor

    One dimension becomes two. Kernels may be computed; a computed bias is added afterwards.
    TensorRT-RTX 1.7 builds no transposed one in bfloat16, so there it is one in float32.

    Shapes: (N, C, L), (N, C, H, W) or (N, C, D, H, W); batch and sizes may be dynamic.
    Dtypes: float16, bfloat16, float32.
    Source: torch.nn.functional.conv2d, conv_transpose2d; IConvolutionLayer, IDeconvolutionLayer.
    """
    spatial = input.rank - 2
    window = _Window(*(_each(v, spatial) for v in (stride, padding, dilation, output_padding)))
    if spatial == 1:
        window = window.as_image()
        input, weight = (ctx.reshape(t, (*t.shape[:2], 1, t.shape[2])) for t in (input, weight))
    layer, narrow = _deconvolution if transposed else _convolution, input.dtype
    if transposed and narrow == "BF16" and ctx.target.engine_kind == "tensorrt-rtx":
        input, weight = ctx.cast(input, "FLOAT"), ctx.cast(weight, "FLOAT")
        bias = None if bias is None else ctx.cast(bias, "FLOAT")
    late_bias = bias is not None and not ctx.is_constant(bias)
    out = layer(ctx, input, weight, None if late_bias else bias, window, groups)
    if late_bias:
        assert bias is not None
        out = ctx.elementwise("SUM", out, ctx.reshape(bias, (*bias.shape, *(1,) * (out.rank - 2))))
    out = ctx.cast(out, narrow)
    return ctx.reshape(out, ctx.result.shape) if spatial == 1 else out


def _convolution(
    ctx: Context, x: Tensor, kernel: Tensor, bias: Tensor | None, window: _Window, groups: int
) -> Tensor:
    return ctx.add(
        "convolution_nd",
        {"input": x, "kernel": kernel, "bias": bias},
        num_output_maps=kernel.shape[0],
        kernel_shape=kernel.shape[2:],
        stride_nd=window.stride,
        pre_padding=window.padding,
        post_padding=window.padding,
        dilation_nd=window.dilation,
        num_groups=groups,
    )


def _deconvolution(
    ctx: Context, x: Tensor, kernel: Tensor, bias: Tensor | None, window: _Window, groups: int
) -> Tensor:
    """PyTorch's output padding is less padding at the end, as TensorRT sees it."""
    maps = kernel.shape[1] * groups
    dilation = window.dilation
    post = [p - extra for p, extra in zip(window.padding, window.output_padding, strict=True)]
    if max(window.stride) > 1 and max(dilation) > 1:
        kernel = _spread(ctx, kernel, dilation)
        post = [p + d - 1 for p, d in zip(post, dilation, strict=True)]
        dilation = (1,) * len(dilation)
    more = [-(min(p, 0) // s) for p, s in zip(post, window.stride, strict=True)]
    if any(more):  # zeros behind the input make room for what padding below zero would add
        shape = (*x.shape[:2], *(d + n for d, n in zip(x.shape[2:], more, strict=True)))
        x = ctx.slice(x, (0,) * x.rank, shape, mode="FILL")
        post = [p + n * s for p, n, s in zip(post, more, window.stride, strict=True)]
    return ctx.add(
        "deconvolution_nd",
        {"input": x, "kernel": kernel, "bias": bias},
        num_output_maps=maps,
        kernel_shape=kernel.shape[2:],
        stride_nd=window.stride,
        pre_padding=window.padding,
        post_padding=post,
        dilation_nd=dilation,
        num_groups=groups,
    )


def _spread(ctx: Context, kernel: Tensor, dilation: Ints) -> Tensor:
    """The kernel with zeros between (and behind) its elements instead of a dilation."""
    maps, sizes = kernel.shape[:2], kernel.shape[2:]
    apart = [n for k in sizes for n in (k, 1)]
    kernel = ctx.reshape(kernel, (*maps, *apart))
    if ctx.is_constant(kernel):
        pad = [n for d in reversed(dilation) for n in (0, d - 1, 0, 0)]
        kernel = ctx.fold(aten.constant_pad_nd.default, kernel, pad, use="spread")
    else:
        wide = [n for k, d in zip(sizes, dilation, strict=True) for n in (k, d)]
        kernel = ctx.slice(kernel, (0,) * kernel.rank, (*maps, *wide), mode="FILL")
    return ctx.reshape(kernel, (*maps, *(k * d for k, d in zip(sizes, dilation, strict=True))))


def _each(values: Sequence[int], count: int) -> Ints:
    """One value for every dim; a single one is for all."""
    return tuple(values) * (count if len(values) == 1 else 1)
