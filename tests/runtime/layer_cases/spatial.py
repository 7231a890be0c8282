# SPDX-License-Identifier: Apache-2.0
"""Convolution, pooling, resampling."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from tests.runtime.layer_cases.case import Case, x
from trtpack_runtime.dims import dim

T = torch.Tensor


def windows() -> list[Case]:
    def conv(**more: Any) -> dict[str, Any]:
        return {
            "num_output_maps": 4,
            "kernel_shape": (3, 3),
            "stride_nd": (1, 1),
            "pre_padding": (0, 0),
            "post_padding": (0, 0),
            "dilation_nd": (1, 1),
            "num_groups": 1,
        } | more

    def pool(**more: Any) -> dict[str, Any]:
        return {
            "type": "MAX",
            "window_size": (3, 3),
            "stride_nd": (2, 2),
            "pre_padding": (0, 0),
            "post_padding": (0, 0),
            "padding_mode": "EXPLICIT_ROUND_DOWN",
        } | more

    open_image = {"input": (0, 2, 3)}
    small = {"low": -0.5, "high": 0.5}
    return [
        Case(
            "convolution_nd",
            {
                "input": x(2, 3, 8, 7),
                "kernel": x(4, 3, 3, 3, constant=True, **small),
                "bias": x(4, constant=True),
            },
            conv(stride_nd=(2, 1), pre_padding=(1, 2), post_padding=(1, 2)),
            lambda input, kernel, bias: F.conv2d(input, kernel, bias, (2, 1), (1, 2)),
            dynamic=open_image,
        ),
        Case(
            "convolution_nd",
            {"input": x(2, 4, 8, 8), "kernel": x(4, 2, 3, 3, constant=True, **small)},
            conv(num_groups=2, dilation_nd=(2, 2), pre_padding=(2, 2), post_padding=(2, 2)),
            lambda input, kernel: F.conv2d(input, kernel, None, 1, 2, 2, 2),
            label="groups, dilation",
        ),
        Case(
            "convolution_nd",
            {"input": x(1, 3, 8, 8), "kernel": x(4, 3, 3, 3, constant=True, **small)},
            conv(pre_padding=(0, 0), post_padding=(1, 1), stride_nd=(2, 2)),
            lambda input, kernel: F.conv2d(F.pad(input, (0, 1, 0, 1)), kernel, None, 2),
            label="one-sided padding",
        ),
        Case(
            "convolution_nd",
            {"input": x(1, 3, 8, 8), "kernel": x(4, 3, 3, 3, **small)},
            conv(),
            lambda input, kernel: F.conv2d(input, kernel),
            label="kernel is a tensor",
        ),
        Case(
            "convolution_nd",
            {
                "input": x(1, 2, 4, 5, 6),
                "kernel": x(4, 2, 2, 2, 2, constant=True, **small),
                "bias": x(4, constant=True),
            },
            {
                **conv(),
                "kernel_shape": (2, 2, 2),
                **dict.fromkeys(("stride_nd", "dilation_nd"), (1, 1, 1)),
                **dict.fromkeys(("pre_padding", "post_padding"), (0, 0, 0)),
            },
            lambda input, kernel, bias: F.conv3d(input, kernel, bias),
            label="3d",
            dynamic={"input": (0,)},
        ),
        Case(
            "deconvolution_nd",
            {
                "input": x(2, 3, 5, 6),
                "kernel": x(3, 4, 3, 3, constant=True, **small),
                "bias": x(4, constant=True),
            },
            conv(stride_nd=(2, 2), pre_padding=(1, 1), post_padding=(1, 1)),
            lambda input, kernel, bias: F.conv_transpose2d(input, kernel, bias, 2, 1),
            dynamic=open_image,
        ),
        Case(
            "deconvolution_nd",
            {"input": x(2, 4, 5, 6), "kernel": x(4, 2, 3, 3, constant=True, **small)},
            conv(stride_nd=(2, 2), pre_padding=(1, 1), num_groups=2),
            lambda input, kernel: F.conv_transpose2d(input, kernel, None, 2, 1, 1, 2),
            label="output padding, groups",
        ),
        *(
            Case(
                "pooling_nd",
                {"input": x(2, 3, 8, 9)},
                pool(
                    type=type_, pre_padding=(1, 1), post_padding=(1, 1), padding_mode=mode, **more
                ),
                lambda input, f=function: f(input),
                dynamic=open_image,
                label=str(more),
            )
            for type_, mode, more, function in (
                ("MAX", "EXPLICIT_ROUND_DOWN", {}, lambda v: F.max_pool2d(v, 3, 2, 1)),
                (
                    "MAX",
                    "EXPLICIT_ROUND_UP",
                    {},
                    lambda v: F.max_pool2d(v, 3, 2, 1, ceil_mode=True),
                ),
                (
                    "AVERAGE",
                    "EXPLICIT_ROUND_DOWN",
                    {"average_count_excludes_padding": False},
                    lambda v: F.avg_pool2d(v, 3, 2, 1),
                ),
                (
                    "AVERAGE",
                    "EXPLICIT_ROUND_DOWN",
                    {},
                    lambda v: F.avg_pool2d(v, 3, 2, 1, count_include_pad=False),
                ),
                (
                    "AVERAGE",
                    "EXPLICIT_ROUND_UP",
                    {"average_count_excludes_padding": False},
                    # the whole window counts, also beyond the padded input
                    lambda v: F.avg_pool2d(F.pad(v, (1, 2, 1, 2)), 3, 2),
                ),
                (
                    "AVERAGE",
                    "EXPLICIT_ROUND_UP",
                    {"average_count_excludes_padding": True},
                    lambda v: F.avg_pool2d(v, 3, 2, 1, ceil_mode=True, count_include_pad=False),
                ),
            )
        ),
        Case(
            "pooling_nd",
            {"input": x(1, 2, 7, 8)},
            pool(padding_mode="SAME_UPPER"),
            lambda input: F.max_pool2d(F.pad(input, (0, 1, 1, 1), value=-9.0), 3, 2),
        ),
        Case(
            "pooling_nd",
            {"input": x(1, 2, 7, 8)},
            pool(padding_mode="SAME_LOWER"),
            lambda input: F.max_pool2d(F.pad(input, (1, 0, 1, 1), value=-9.0), 3, 2),
        ),
        Case(
            "pooling_nd",
            {"input": x(1, 2, 4, 6, 8)},
            pool(
                type="AVERAGE",
                window_size=(2, 2, 2),
                stride_nd=(2, 2, 2),
                pre_padding=(0, 0, 0),
                post_padding=(0, 0, 0),
            ),
            lambda input: F.avg_pool3d(input, 2),
            label="3d",
        ),
        Case(
            "scale_nd",
            {
                "input": x(2, 3, 4, 5, low=0.5, high=2.0),
                "scale": x(3, low=0.5, constant=True),
                "shift": x(3, low=0.5, constant=True),
                "power": x(3, low=0.5, constant=True),
            },
            {"mode": "CHANNEL", "channel_axis": 1},
            lambda input, scale, shift, power: (
                (input.movedim(1, -1) * scale + shift) ** power
            ).movedim(-1, 1),
            dynamic=open_image,
        ),
        Case(
            "scale_nd",
            {"input": x(2, 3, 4, 5), "scale": x(3, 4, 5, constant=True)},
            {"mode": "ELEMENTWISE", "channel_axis": 1},
            lambda input, scale: torch.stack([sample * scale for sample in input]),
            dynamic={"input": (0,)},
        ),
        Case(
            "scale_nd",
            {"input": x(2, 3, 4, 5), "shift": x(1, values=(0.5,), constant=True)},
            {"mode": "UNIFORM", "channel_axis": 1},
            lambda input, shift: input + 0.5,
        ),
    ]


def resamplings() -> list[Case]:
    def resize(mode: str, how: str, shape: tuple[Any, ...], **more: Any) -> dict[str, Any]:
        return {"resize_mode": mode, "coordinate_transformation": how, "shape": shape, **more}

    height, width = dim("input", 2), dim("input", 3)
    n = dim("input", 0)
    twice = (n, 3, height * 2, width * 2)
    return [
        Case(
            "resize",
            {"input": x(2, 3, 5, 6)},
            resize("NEAREST", "ASYMMETRIC", twice, nearest_rounding="FLOOR"),
            lambda input: F.interpolate(input, scale_factor=2, mode="nearest"),
            dynamic={"input": (0, 2, 3)},
        ),
        Case(
            "resize",
            {"input": x(2, 3, 5, 6)},
            resize("NEAREST", "HALF_PIXEL", (2, 3, 9, 4), nearest_rounding="HALF_DOWN"),
            lambda input: F.interpolate(input, (9, 4), mode="nearest-exact"),
            label="half down",
        ),
        Case(
            "resize",
            {"input": x(2, 3, 5, 6)},
            {
                "resize_mode": "NEAREST",
                "coordinate_transformation": "ASYMMETRIC",
                "scales": (1.0, 1.0, 2.0, 1.5),
            },
            lambda input: F.interpolate(input, (10, 9), mode="nearest"),
            label="scales",
            dynamic={"input": (0, 2)},
        ),
        Case(
            "resize",
            {"input": x(2, 3, 5, 6)},
            resize("LINEAR", "HALF_PIXEL", (2, 3, 8, 4)),
            lambda input: F.interpolate(input, (8, 4), mode="bilinear"),
        ),
        Case(
            "resize",
            {"input": x(2, 3, 5, 6)},
            resize("LINEAR", "ALIGN_CORNERS", twice),
            lambda input: F.interpolate(input, scale_factor=2, mode="bilinear", align_corners=True),
            dynamic={"input": (0, 2, 3)},
        ),
        Case(
            "resize",
            {"input": x(1, 2, 4, 4, 4)},
            resize("LINEAR", "HALF_PIXEL", (1, 2, 8, 6, 3)),
            lambda input: F.interpolate(input, (8, 6, 3), mode="trilinear"),
            label="3d",
        ),
        Case(
            "resize",
            {"input": x(1, 2, 5, 5)},
            resize("LINEAR", "HALF_PIXEL", (1, 2, 1, 1), selector_for_single_pixel="UPPER"),
            lambda input: input[:, :, :1, :1],
            label="upper",
        ),
        Case(
            "resize",
            {"input": x(1, 2, 6, 5)},
            resize("CUBIC", "HALF_PIXEL", (1, 2, 9, 12), cubic_coeff=-0.75),
            lambda input: F.interpolate(input, (9, 12), mode="bicubic"),
        ),
        Case(
            "resize",
            {"input": x(1, 2, 6, 5)},
            resize("CUBIC", "ALIGN_CORNERS", (1, 2, 9, 12), cubic_coeff=-0.75),
            lambda input: F.interpolate(input, (9, 12), mode="bicubic", align_corners=True),
        ),
        *(
            Case(
                "grid_sample",
                {"input": x(2, 3, 5, 6), "grid": x(2, 4, 4, 2, low=-1.3, high=1.3)},
                {"interpolation_mode": mode, "align_corners": align, "sample_mode": sample},
                lambda input, grid, a=arguments: F.grid_sample(input, grid, *a),
                dtypes=("FLOAT",),
                dynamic={"input": (0,), "grid": (0,)},
            )
            for mode, align, sample, arguments in (
                ("LINEAR", False, "FILL", ("bilinear", "zeros", False)),
                ("NEAREST", True, "CLAMP", ("nearest", "border", True)),
                ("CUBIC", False, "REFLECT", ("bicubic", "reflection", False)),
            )
        ),
    ]
