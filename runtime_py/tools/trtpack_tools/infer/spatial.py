# SPDX-License-Identifier: Apache-2.0
"""Rules of convolution, pooling, resampling."""

from __future__ import annotations

import math
from fractions import Fraction

from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .rules import (
    Mismatch,
    Results,
    Shape,
    agree,
    ceildiv,
    require,
    require_rank,
    require_shape,
    require_sizes,
    rule,
    text,
)

Ints = tuple[int, ...]


@rule
def convolution_nd(
    input: Tensor,
    kernel: Tensor,
    num_output_maps: int,
    kernel_shape: Ints,
    stride_nd: Ints,
    pre_padding: Ints,
    post_padding: Ints,
    dilation_nd: Ints,
    num_groups: int,
    bias: Tensor | None = None,
) -> Results:
    window = (kernel_shape, stride_nd, pre_padding, post_padding, dilation_nd)
    channels = _static_channels(input, *window)
    require_shape(
        "kernel", kernel, (num_output_maps, _per_group(channels, num_groups), *kernel_shape)
    )
    _require_bias(bias, num_output_maps)
    spatial = tuple(
        (size + before + after - (dilation * (k - 1) + 1)) // stride + 1
        for size, k, stride, before, after, dilation in zip(input.shape[2:], *window, strict=True)
    )
    return [_answer(input, num_output_maps, spatial)]


@rule
def deconvolution_nd(
    input: Tensor,
    kernel: Tensor,
    num_output_maps: int,
    kernel_shape: Ints,
    stride_nd: Ints,
    pre_padding: Ints,
    post_padding: Ints,
    dilation_nd: Ints,
    num_groups: int,
    bias: Tensor | None = None,
) -> Results:
    window = (kernel_shape, stride_nd, pre_padding, post_padding, dilation_nd)
    channels = _static_channels(input, *window)
    if channels % max(num_groups, 1):
        raise Mismatch(f"attribute num_groups: {num_groups} does not divide {channels} channels")
    per_group = _per_group(num_output_maps, num_groups)
    require_shape("kernel", kernel, (channels, per_group, *kernel_shape))
    _require_bias(bias, num_output_maps)
    spatial = tuple(
        (size - 1) * stride + (dilation * (k - 1) + 1) - before - after
        for size, k, stride, before, after, dilation in zip(input.shape[2:], *window, strict=True)
    )
    return [_answer(input, num_output_maps, spatial)]


@rule
def pooling_nd(
    input: Tensor,
    type: str,
    window_size: Ints,
    stride_nd: Ints,
    pre_padding: Ints,
    post_padding: Ints,
    padding_mode: str,
    average_count_excludes_padding: bool = True,
) -> Results:
    window = (window_size, stride_nd, pre_padding, post_padding)
    channels = _channels(input, *window)
    spatial: Shape = ()
    for size, k, stride, before, after in zip(input.shape[2:], *window, strict=True):
        if padding_mode.startswith("SAME"):
            spatial += (ceildiv(size, stride),)
            continue
        reach = size + before + after - k
        up = padding_mode == "EXPLICIT_ROUND_UP"
        spatial += ((ceildiv(reach, stride) if up else reach // stride) + 1,)
    return [_answer(input, channels, spatial)]


@rule
def resize(
    input: Tensor,
    resize_mode: str,
    coordinate_transformation: str,
    shape: Shape | None = None,
    scales: tuple[float, ...] | None = None,
    selector_for_single_pixel: str = "FORMULA",
    nearest_rounding: str = "FLOOR",
    cubic_coeff: float = -0.75,
    exclude_outside: bool = False,
) -> Results:
    if shape is None:
        if scales is None:
            raise Mismatch("attributes shape and scales: wanted exactly one of them")
        require(len(scales) == input.rank, f"attribute scales: wanted one a dim of {input}")
        shape = tuple(_scaled(d, s) for d, s in zip(input.shape, scales, strict=True))
    else:
        require(scales is None, "attributes shape and scales: wanted exactly one of them")
        require(len(shape) == input.rank, f"attribute shape: wanted rank {input.rank}")
        require_sizes("attribute shape", shape)
    innermost = 2 if resize_mode == "CUBIC" else 3
    for have, want in zip(input.shape[:-innermost], shape[:-innermost], strict=True):
        require(
            agree(have, want) is not None,
            f"attribute shape: {resize_mode} resizes the last {innermost} dims, "
            f"got {text(shape)} for {input}",
        )
    return [(input.dtype, shape)]


@rule
def grid_sample(
    input: Tensor, grid: Tensor, interpolation_mode: str, align_corners: bool, sample_mode: str
) -> Results:
    require_rank("input", input, 4, 5)
    require_rank("grid", grid, input.rank)
    require(
        sample_mode in ("CLAMP", "FILL", "REFLECT"),
        f"attribute sample_mode: wanted CLAMP or FILL or REFLECT, got {sample_mode}",
    )
    require_shape("grid", grid, (input.shape[0], *grid.shape[1:-1], input.rank - 2))
    return [(input.dtype, (*input.shape[:2], *grid.shape[1:-1]))]


def _channels(input: Tensor, *window: Ints) -> Dim:
    require_rank("input", input, 4, 5)
    for values in window:
        require(
            len(values) == input.rank - 2,
            f"wanted {input.rank - 2} values a spatial attribute for {input}, got {text(values)}",
        )
    kernel, stride, before, after, *dilation = window
    require(min(kernel + stride) > 0, "kernel and stride: wanted sizes above 0")
    require(min(before + after) >= 0, "padding: wanted sizes of at least 0")
    require(all(min(d) > 0 for d in dilation), "dilation: wanted sizes above 0")
    return input.shape[1]


def _static_channels(input: Tensor, *window: Ints) -> int:
    channels = _channels(input, *window)
    if not isinstance(channels, int):
        raise Mismatch(f"operand input: wanted a static number of channels, got {input}")
    return channels


def _per_group(channels: int, groups: int) -> int:
    if groups < 1 or channels % groups:
        raise Mismatch(f"attribute num_groups: {groups} does not divide {channels} channels")
    return channels // groups


def _require_bias(bias: Tensor | None, maps: int) -> None:
    if bias is not None:
        require_shape("bias", bias, (maps,))


def _answer(input: Tensor, channels: Dim, spatial: Shape) -> tuple[str, Shape]:
    if any(isinstance(size, int) and size < 1 for size in spatial):
        raise Mismatch(f"operand input: the output of {input} would be empty: {text(spatial)}")
    return input.dtype, (input.shape[0], channels, *spatial)


def _scaled(size: Dim, scale: float) -> Dim:
    if isinstance(size, int):
        return math.floor(size * scale)
    exact = Fraction(scale)
    if exact.denominator > 1024:
        raise Mismatch(f"attribute scales: {scale} of a dynamic size is not exact, give shape")
    return (size * exact.numerator) // exact.denominator
