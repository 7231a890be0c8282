# SPDX-License-Identifier: Apache-2.0
"""Every way to resize, sample and pool, computed element by element in exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_input

from tests.runtime.layer_cases.case import Case, x

T = torch.Tensor
COORDINATES = ("ALIGN_CORNERS", "ASYMMETRIC", "HALF_PIXEL")
ROUNDINGS: dict[str, Callable[[Fraction], int]] = {
    "FLOOR": math.floor,
    "CEIL": math.ceil,
    "HALF_UP": lambda at: math.floor(at + Fraction(1, 2)),
    "HALF_DOWN": lambda at: math.ceil(at - Fraction(1, 2)),
}
ONLY_FLOAT = ("FLOAT",)


def resizings() -> list[Case]:
    cases = []
    for how, rounding in product(COORDINATES, ROUNDINGS):
        for shape in ((1, 2, 4, 4), (1, 2, 9, 7)):
            cases.append(
                _resize("NEAREST", how, (8, 6), shape, nearest_rounding=rounding),
            )
    for how in COORDINATES:
        for shape in ((1, 2, 4, 9), (1, 2, 7, 2)):
            cases.append(_resize("LINEAR", how, (5, 6), shape))
            cases.append(_resize("CUBIC", how, (5, 6), shape, cubic_coeff=-0.75))
        cases.append(_resize("CUBIC", how, (5, 6), (1, 2, 7, 9), cubic_coeff=-0.5))
        cases.append(
            _resize("CUBIC", how, (5, 6), (1, 2, 7, 9), cubic_coeff=-0.75, exclude_outside=True)
        )
        for mode, selector in product(("NEAREST", "LINEAR"), ("UPPER", "FORMULA")):
            cases.append(
                _resize(mode, how, (5, 6), (1, 2, 1, 1), selector_for_single_pixel=selector)
            )
    for mode, how in product(("NEAREST", "LINEAR"), COORDINATES):
        cases.append(_resize(mode, how, (5, 6), None, scales=(1.0, 1.0, 2.0, 0.5)))
        cases.append(_resize(mode, how, (5, 6), None, scales=(1.0, 1.0, 1.5, 1.25)))
    return cases


def _resize(
    mode: str, how: str, sizes: tuple[int, int], shape: tuple[int, ...] | None, **more: Any
) -> Case:
    attributes = {"resize_mode": mode, "coordinate_transformation": how, **more}
    if shape is not None:
        attributes["shape"] = shape
    wanted = shape or tuple(
        math.floor(Fraction(s) * d) for s, d in zip(more["scales"], (1, 2, *sizes), strict=True)
    )

    def expected(input: T) -> T:
        value = input.double()
        for axis in (2, 3):
            have, want = value.shape[axis], wanted[axis]
            step = Fraction(have, want)
            if "scales" in attributes:
                step = 1 / Fraction(attributes["scales"][axis])
            weights = _weights(have, want, step, attributes)
            value = torch.tensordot(value, weights, ([axis], [1])).movedim(-1, axis)
        return value.float()

    numbers = [str(v) for v in more.values() if not isinstance(v, str)]
    label = "x".join(map(str, wanted[2:])) + "".join(f" {n}" for n in numbers)
    return Case(
        "resize", {"input": x(1, 2, *sizes)}, attributes, expected, dtypes=ONLY_FLOAT, label=label
    )


def _weights(have: int, want: int, step: Fraction, attributes: dict[str, Any]) -> T:
    """How much of each input element (column) goes into each output element (row)."""
    mode, found = attributes["resize_mode"], torch.zeros(want, have, dtype=torch.float64)
    if have == want and step == 1:
        return torch.eye(have, dtype=torch.float64)
    for row in range(want):
        at = _at(row, have, want, step, attributes)
        if mode == "NEAREST":
            index = ROUNDINGS[attributes.get("nearest_rounding", "FLOOR")](at)
            found[row, min(max(index, 0), have - 1)] = 1
            continue
        if mode == "LINEAR":
            at = min(max(at, Fraction(0)), Fraction(have - 1))
        taps = range(math.floor(at) - 1, math.floor(at) + 3)
        parts = {tap: _part(float(abs(at - tap)), attributes) for tap in taps}
        if attributes.get("exclude_outside"):
            parts = {tap: part for tap, part in parts.items() if 0 <= tap < have}
            parts = {tap: part / sum(parts.values()) for tap, part in parts.items()}
        for tap, part in parts.items():
            found[row, min(max(tap, 0), have - 1)] += part
    return found


def _at(row: int, have: int, want: int, step: Fraction, attributes: dict[str, Any]) -> Fraction:
    if want == 1 and attributes.get("selector_for_single_pixel") == "UPPER":
        return Fraction(0)
    how = attributes["coordinate_transformation"]
    if how == "ALIGN_CORNERS":
        return Fraction(row * (have - 1), want - 1) if want > 1 else Fraction(0)
    if how == "ASYMMETRIC":
        return row * step
    return (row + Fraction(1, 2)) * step - Fraction(1, 2)


def _part(distance: float, attributes: dict[str, Any]) -> float:
    if attributes["resize_mode"] == "LINEAR":
        return max(0.0, 1 - distance)
    a = attributes["cubic_coeff"]
    if distance <= 1:
        return float((a + 2) * distance**3 - (a + 3) * distance**2 + 1)
    if distance < 2:
        return float(a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a)
    return 0.0


def samplings() -> list[Case]:
    """Grids that reach beyond the borders, all modes; PyTorch's own function is the answer."""
    modes = {"NEAREST": "nearest", "LINEAR": "bilinear", "CUBIC": "bicubic"}
    outside = {"FILL": "zeros", "CLAMP": "border", "REFLECT": "reflection"}
    return [
        Case(
            "grid_sample",
            {"input": x(1, 2, 5, 4), "grid": x(1, 6, 5, 2, low=-2.3, high=2.3)},
            {"interpolation_mode": mode, "align_corners": align, "sample_mode": sample},
            lambda input, grid, m=mode, a=align, s=sample: F.grid_sample(
                input, grid, modes[m], outside[s], a
            ),
            dtypes=ONLY_FLOAT,
            dynamic={"input": (0,), "grid": (0,)},
            label=f"{align} far",
        )
        for mode, align, sample in product(modes, (False, True), outside)
    ]


def poolings() -> list[Case]:
    cases = []
    for type_, excludes in (("MAX", None), ("AVERAGE", True), ("AVERAGE", False)):
        for mode, window, stride, pre, post in (
            ("EXPLICIT_ROUND_DOWN", (3, 2), (2, 2), (1, 0), (0, 1)),
            ("EXPLICIT_ROUND_UP", (3, 2), (2, 2), (1, 0), (0, 1)),
            ("EXPLICIT_ROUND_UP", (3, 3), (2, 2), (0, 0), (0, 0)),
            ("EXPLICIT_ROUND_DOWN", (2, 2), (3, 3), (0, 0), (0, 0)),
            ("EXPLICIT_ROUND_UP", (3, 3), (2, 3), (1, 1), (1, 1)),
            ("SAME_UPPER", (3, 2), (2, 1), (0, 0), (0, 0)),
            ("SAME_LOWER", (3, 2), (2, 1), (0, 0), (0, 0)),
        ):
            attributes: dict[str, Any] = {
                "type": type_,
                "window_size": window,
                "stride_nd": stride,
                "pre_padding": pre,
                "post_padding": post,
                "padding_mode": mode,
            }
            if excludes is not None:
                attributes["average_count_excludes_padding"] = excludes
            cases.append(
                Case(
                    "pooling_nd",
                    {"input": x(1, 2, 8, 7)},
                    attributes,
                    lambda input, a=attributes: _pooled(input, a),
                    dynamic={"input": (0, 2, 3)},
                    label=f"{window} {stride} {pre} {post} {excludes or ''}".strip(),
                )
            )
    return cases


def _pooled(value: T, attributes: dict[str, Any]) -> T:
    names = ("window_size", "stride_nd", "pre_padding", "post_padding")
    mode = attributes["padding_mode"]
    heights, widths = (
        _windows(value.shape[2 + i], [attributes[name][i] for name in names], mode)
        for i in range(2)
    )
    answer = torch.zeros(*value.shape[:2], len(heights), len(widths))
    for i, j in product(range(len(heights)), range(len(widths))):
        (y0, y1), (x0, x1) = heights[i], widths[j]
        seen = value[:, :, max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        if attributes["type"] == "MAX":
            answer[:, :, i, j] = seen.amax((2, 3))
            continue
        count = (y1 - y0) * (x1 - x0)
        if attributes["average_count_excludes_padding"]:
            count = seen.shape[2] * seen.shape[3]
        answer[:, :, i, j] = seen.sum((2, 3)) / count
    return answer


def _windows(size: int, sizes: list[int], mode: str) -> list[tuple[int, int]]:
    """Where each window begins and ends."""
    window, stride, pre, post = sizes
    if mode.startswith("SAME"):
        count = math.ceil(size / stride)
        padding = max((count - 1) * stride + window - size, 0)
        pre = padding // 2 if mode == "SAME_UPPER" else math.ceil(padding / 2)
    else:
        rounded = math.ceil if mode == "EXPLICIT_ROUND_UP" else math.floor
        count = rounded((size + pre + post - window) / stride) + 1
    starts = [i * stride - pre for i in range(count)]
    return [(start, start + window) for start in starts]


def deconvolutions() -> list[Case]:
    """Each the gradient of the convolution it is called after.

    None is both strided and dilated: "Strided & Dilated Deconv are currently not supported" is
    what TensorRT-RTX 1.7 says.
    """
    cases = []
    for stride, padding, dilation, groups in (
        ((1, 1), (0, 0), (1, 1), 1),
        ((3, 2), (0, 1), (1, 1), 1),
        ((1, 1), (1, 2), (2, 2), 1),
        ((2, 2), (1, 1), (1, 1), 2),
        ((1, 1), (1, 1), (2, 1), 2),
        ((2, 1), (0, 0), (1, 1), 4),
    ):
        sizes = [
            (have - 1) * s - 2 * p + d * 2 + 1
            for have, s, p, d in zip((5, 4), stride, padding, dilation, strict=True)
        ]
        cases.append(
            Case(
                "deconvolution_nd",
                {
                    "input": x(2, 4, 5, 4),
                    "kernel": x(4, 8 // groups, 3, 3, constant=True, low=-0.5, high=0.5),
                },
                {
                    "num_output_maps": 8,
                    "kernel_shape": (3, 3),
                    "stride_nd": stride,
                    "pre_padding": padding,
                    "post_padding": padding,
                    "dilation_nd": dilation,
                    "num_groups": groups,
                },
                lambda input, kernel, z=sizes, s=stride, p=padding, d=dilation, g=groups: (
                    conv2d_input([2, 8, *z], kernel, input, s, p, d, g)
                ),
                dynamic={"input": (0, 2, 3)},
                label=f"{stride} {padding} {dilation} {groups}",
            )
        )
    return cases
