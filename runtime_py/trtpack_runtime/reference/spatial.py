# SPDX-License-Identifier: Apache-2.0
"""Convolution, pooling, resampling."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from .registry import kernel

T = torch.Tensor
Ints = tuple[int, ...]


@kernel
def convolution_nd(
    input: T,
    kernel: T,
    num_output_maps: int,
    kernel_shape: Ints,
    stride_nd: Ints,
    pre_padding: Ints,
    post_padding: Ints,
    dilation_nd: Ints,
    num_groups: int,
    bias: T | None = None,
) -> T:
    conv: Any = F.conv2d if input.dim() == 4 else F.conv3d
    padding: Ints = pre_padding
    if pre_padding != post_padding:
        input = F.pad(input, _sides(pre_padding, post_padding))
        padding = (0,) * len(pre_padding)
    answer: T = conv(input, kernel, bias, stride_nd, padding, dilation_nd, num_groups)
    return answer


@kernel
def deconvolution_nd(
    input: T,
    kernel: T,
    num_output_maps: int,
    kernel_shape: Ints,
    stride_nd: Ints,
    pre_padding: Ints,
    post_padding: Ints,
    dilation_nd: Ints,
    num_groups: int,
    bias: T | None = None,
) -> T:
    conv: Any = F.conv_transpose2d if input.dim() == 4 else F.conv_transpose3d
    if pre_padding == post_padding:
        answer: T = conv(input, kernel, bias, stride_nd, pre_padding, 0, num_groups, dilation_nd)
        return answer
    # the whole product, cut to what the two paddings leave
    whole: T = conv(input, kernel, bias, stride_nd, 0, 0, num_groups, dilation_nd)
    for axis, (before, after) in enumerate(zip(pre_padding, post_padding, strict=True), start=2):
        whole = whole.narrow(axis, before, whole.shape[axis] - before - after)
    return whole


@kernel
def pooling_nd(
    input: T,
    type: str,
    window_size: Ints,
    stride_nd: Ints,
    pre_padding: Ints,
    post_padding: Ints,
    padding_mode: str,
    average_count_excludes_padding: bool = True,
) -> T:
    before, after = [], []
    for size, k, stride, pre, post in zip(
        input.shape[2:], window_size, stride_nd, pre_padding, post_padding, strict=True
    ):
        if padding_mode.startswith("SAME"):
            count = -(-size // stride)
            padding = max((count - 1) * stride + k - size, 0)
            pre = (padding + (padding_mode == "SAME_LOWER")) // 2
            post = padding - pre
        else:
            reach = size + pre + post - k
            count = (
                -(-reach // stride) if padding_mode == "EXPLICIT_ROUND_UP" else reach // stride
            ) + 1
        before.append(pre)
        after.append((count - 1) * stride + k - size - pre)
    sides = _sides(before, after)
    if type == "MAX":
        pool: Any = F.max_pool2d if input.dim() == 4 else F.max_pool3d
        answer: T = pool(F.pad(input, sides, value=-math.inf), window_size, stride_nd)
        return answer
    mean: Any = F.avg_pool2d if input.dim() == 4 else F.avg_pool3d
    # in three dims PyTorch averages no float16 on a CPU
    wide = input.float() if input.dim() == 5 else input
    average: T = mean(F.pad(wide, sides), window_size, stride_nd)
    # what counts padding counts the whole window, also where it reaches beyond the padded input
    if not any(sides) or not average_count_excludes_padding:
        return average.to(input.dtype)
    counted = torch.ones((1, 1, *input.shape[2:]), device=input.device)
    share = mean(F.pad(counted, sides), window_size, stride_nd)
    average = average.float() / share
    return average.to(input.dtype)


@kernel
def resize(
    input: T,
    resize_mode: str,
    coordinate_transformation: str,
    shape: Ints | None = None,
    scales: tuple[float, ...] | None = None,
    selector_for_single_pixel: str = "FORMULA",
    nearest_rounding: str = "FLOOR",
    cubic_coeff: float = -0.75,
    exclude_outside: bool = False,
) -> T:
    # given scales place the elements, also where the sizes are no whole multiples
    steps = [None] * input.dim() if scales is None else [1 / scale for scale in scales]
    if shape is None:
        assert scales is not None
        shape = tuple(math.floor(d * s) for d, s in zip(input.shape, scales, strict=True))
    exact = resize_mode == "NEAREST"
    value = input if exact else input.float()
    for axis, (have, want, step) in enumerate(zip(input.shape, shape, steps, strict=True)):
        if have == want and step in (None, 1):
            continue
        at = _coordinates(
            have, want, step, coordinate_transformation, selector_for_single_pixel, input.device
        )
        if exact:
            index = _ROUND[nearest_rounding](at).long().clamp(0, have - 1)
            value = value.index_select(axis, index)
        elif resize_mode == "LINEAR":
            value = _mixed(value, axis, at, [0, 1], lambda t: (1 - t.abs()).clamp(min=0), False)
        else:
            value = _mixed(
                value, axis, at, [-1, 0, 1, 2], lambda t: _cubic(t, cubic_coeff), exclude_outside
            )
    return value.to(input.dtype)


@kernel
def grid_sample(
    input: T, grid: T, interpolation_mode: str, align_corners: bool, sample_mode: str
) -> T:
    return F.grid_sample(
        input,
        grid,
        mode={"NEAREST": "nearest", "LINEAR": "bilinear", "CUBIC": "bicubic"}[interpolation_mode],
        padding_mode={"FILL": "zeros", "CLAMP": "border", "REFLECT": "reflection"}[sample_mode],
        align_corners=align_corners,
    )


_ROUND: dict[str, Any] = {
    "HALF_UP": lambda x: torch.floor(x + 0.5),
    "HALF_DOWN": lambda x: torch.ceil(x - 0.5),
    "FLOOR": torch.floor,
    "CEIL": torch.ceil,
}


def _coordinates(
    have: int, want: int, step: float | None, how: str, selector: str, device: torch.device
) -> T:
    """Where each output element lies in the input, in float32 as TensorRT computes it."""
    index = torch.arange(want, dtype=torch.float32, device=device)
    if want == 1 and selector == "UPPER":
        return index
    if how == "ALIGN_CORNERS":
        return index * ((have - 1) / (want - 1) if want > 1 else 0.0)
    step = have / want if step is None else step
    return index * step if how == "ASYMMETRIC" else (index + 0.5) * step - 0.5


def _mixed(value: T, axis: int, at: T, taps: list[int], weigh: Any, exclude: bool) -> T:
    """The weighted sum of the input elements around each coordinate; the border is repeated."""
    size = value.shape[axis]
    if len(taps) == 2:
        at = at.clamp(0, size - 1)
    first = at.floor()
    shape = [-1 if i == axis else 1 for i in range(value.dim())]
    weights = [weigh(at - (first + tap)) for tap in taps]
    indices = [(first + tap).long() for tap in taps]
    if exclude:
        weights = [w * ((i >= 0) & (i < size)) for w, i in zip(weights, indices, strict=True)]
        total = torch.stack(weights).sum(0)
        weights = [w / total for w in weights]
    parts = [
        value.index_select(axis, i.clamp(0, size - 1)) * w.reshape(shape)
        for i, w in zip(indices, weights, strict=True)
    ]
    return torch.stack(parts).sum(0)


def _cubic(distance: T, a: float) -> T:
    t = distance.abs()
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def _sides(before: Any, after: Any) -> list[int]:
    """Paddings in ``F.pad``'s order: the last dim first."""
    pairs = list(zip(before, after, strict=True))
    return [value for pair in reversed(pairs) for value in pair]
