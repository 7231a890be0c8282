# SPDX-License-Identifier: Apache-2.0
"""Resampling against eager PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    SizeOf,
    bf16,
    converted,
    dynamic,
    f32,
    kinds,
    refusal,
    size,
)

aten = torch.ops.aten
LINE, IMAGE, VOLUME = f32(2, 3, 7), f32(2, 3, 5, 6), f32(1, 2, 3, 4, 5)
ANY = dynamic(IMAGE, {0: (1, 2, 4), 2: (3, 5, 8), 3: (4, 6, 7)})
DEEP = dynamic(VOLUME, {2: (2, 3, 5)})


def twice(dim: int) -> SizeOf:
    return size(0, dim, lambda n: n * 2)


NEAREST = [
    Case(aten.upsample_nearest1d.vec, LINE, [14], None),
    Case(aten.upsample_nearest1d.vec, LINE, None, [1.5]),
    Case(aten.upsample_nearest1d.default, LINE, [14]),
    Case(aten.upsample_nearest2d.vec, IMAGE, None, [2.0, 2.0]),
    Case(aten.upsample_nearest2d.vec, IMAGE, [8, 4], None),
    Case(aten.upsample_nearest2d.vec, IMAGE, None, [0.7, 1.3]),
    Case(aten.upsample_nearest2d.default, ANY, [twice(2), twice(3)], 2.0, 2.0),
    Case(aten.upsample_nearest2d.default, ANY, [9, 9]),
    Case(aten.upsample_nearest2d.default, IMAGE, [10, 12], 2.0, 2.0),
    Case(aten.upsample_nearest3d.vec, VOLUME, None, [2.0, 2.0, 2.0]),
    Case(aten.upsample_nearest3d.default, VOLUME, [6, 8, 10]),
    Case(aten.upsample_nearest2d.vec, ANY, None, [0.5, 1.5]),
    Case(aten.upsample_nearest2d.vec, ANY, None, [1.7, 0.6]),
    Case(aten._upsample_nearest_exact2d.vec, ANY, None, [0.6, 1.7]),
    Case(aten._upsample_nearest_exact1d.vec, LINE, [10], None),
    Case(aten._upsample_nearest_exact1d.default, LINE, [10]),
    Case(aten._upsample_nearest_exact2d.default, IMAGE, [8, 4]),
    Case(aten._upsample_nearest_exact3d.default, VOLUME, [5, 4, 7]),
    Case(aten._upsample_nearest_exact2d.vec, IMAGE, [8, 4], None),
    Case(aten._upsample_nearest_exact2d.vec, IMAGE, None, [1.3, 0.7]),
    Case(aten._upsample_nearest_exact3d.vec, VOLUME, [5, 4, 7], None),
]
LINEAR = [
    *(
        Case(op, IMAGE, size, aligned, scales)
        for op, aligned, (size, scales) in itertools.product(
            (aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec),
            (False, True),
            (([8, 13], None), ([3, 1], None), (None, [2.0, 2.0]), (None, [1.3, 0.7])),
        )
    ),
    Case(aten.upsample_linear1d.vec, LINE, [10], False, None),
    Case(aten.upsample_linear1d.vec, LINE, None, True, [2.0]),
    Case(aten.upsample_linear1d.default, LINE, [10], False),
    Case(aten.upsample_trilinear3d.default, VOLUME, [6, 8, 10], True),
    Case(aten.upsample_linear1d.vec, LINE, None, False, [1.6]),
    Case(aten.upsample_bilinear2d.default, ANY, [twice(2), twice(3)], False, 2.0, 2.0),
    Case(aten.upsample_bilinear2d.default, ANY, [twice(2), twice(3)], True, 2.0, 2.0),
    Case(aten.upsample_bilinear2d.default, ANY, [9, 5], False),
    Case(aten.upsample_bilinear2d.vec, ANY, None, False, [0.5, 2.5]),
    Case(aten.upsample_bicubic2d.vec, ANY, None, False, [0.5, 2.0]),
    Case(aten.upsample_bicubic2d.default, ANY, [size(0, 2, lambda n: n + 3), twice(3)], False),
    Case(aten.upsample_bilinear2d.default, IMAGE, [8, 13], False),
    Case(aten.upsample_trilinear3d.vec, VOLUME, None, False, [2.0, 2.0, 2.0]),
    Case(aten.upsample_trilinear3d.vec, VOLUME, [4, 7, 3], True, None),
    Case(aten.upsample_trilinear3d.vec, VOLUME, None, False, [1.5, 1.3, 2.0]),
    Case(aten._upsample_bilinear2d_aa.vec, IMAGE, [3, 4], False, None),
    Case(aten._upsample_bilinear2d_aa.vec, IMAGE, [9, 2], True, None),
    Case(aten._upsample_bilinear2d_aa.default, IMAGE, [3, 4], False),
    Case(aten._upsample_bicubic2d_aa.vec, IMAGE, [3, 4], False, None),
    Case(aten._upsample_bicubic2d_aa.default, IMAGE, [8, 5], False),
    Case(aten.upsample_bilinear2d.vec, ANY, None, False, [1.3, 0.6]),
    Case(aten._upsample_bilinear2d_aa.vec, ANY, None, False, [0.6, 1.7]),
    Case(aten._upsample_bilinear2d_aa.default, ANY, [3, 9], False),
    Case(aten._upsample_bicubic2d_aa.default, ANY, [9, size(0, 3, lambda n: n + 1)], False),
]
SLOW = [
    Case(aten.upsample_bicubic2d.vec, ANY, None, False, [0.6, 1.7]),
    Case(aten.upsample_trilinear3d.vec, DEEP, None, False, [1.3, 2.0, 2.0]),
    Case(aten._upsample_bilinear2d_aa.vec, ANY, None, False, [1.2, 1.1]),
    Case(aten._upsample_bicubic2d_aa.vec, ANY, None, False, [1.2, 1.1]),
    Case(aten.upsample_bicubic2d.vec, ANY, None, False, [1.2, 1.1]),
    Case(aten._upsample_bicubic2d_aa.vec, ANY, None, False, [0.4, 1.3]),
    Case(aten._upsample_bilinear2d_aa.default, ANY, [3, 9], True),
    Case(aten.upsample_linear1d.vec, dynamic(LINE, {2: (4, 7, 9)}), None, False, [0.3]),
    Case(aten._upsample_bicubic2d_aa.default, ANY, [size(0, 2, lambda n: n - 1), 4], True),
]
ANTIALIASED = "PyTorch has no antialiasing of float16 on a CPU"


@pytest.mark.parametrize("case", [*NEAREST, *LINEAR], ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case.float32_only(ANTIALIASED) if "_aa" in str(case.op) else case)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW, ids=str)
def test_open_sizes_match_pytorch(case: Case, check: Checker) -> None:
    check(case.float32_only(ANTIALIASED) if "_aa" in str(case.op) else case)


def test_bfloat16_matches_pytorch(check: Checker) -> None:
    check(Case(aten.upsample_bilinear2d.vec, bf16(1, 2, 4, 4), [8, 8], False, None))


def test_resizing_is_one_layer() -> None:
    assert kinds(
        Case(aten.upsample_bilinear2d.default, ANY, [twice(2), twice(3)], True, 2.0, 2.0)
    ) == ["resize"]


def test_a_size_that_whole_numbers_do_not_scale_stays_in_pytorch() -> None:
    reason = refusal(aten.upsample_nearest2d.vec, ANY, None, [2.0, 0.7])
    assert reason == "a size times 0.7 rounds in floating point as no quotient of numbers does"


@pytest.mark.parametrize("op", [aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec])
def test_a_step_survives_constants_in_float16_before_tensorrt_10(op: Any) -> None:
    """TensorRT 8.6 stores constants of float32 in float16 at times."""
    case = Case(op, dynamic(f32(1, 1, 40, 30), {2: (4, 40, 50)}), None, False, [1.3, 1.7])
    made = converted(case, "orin@jetpack-6.0")
    numbers = [value for value in made.constants.values() if value.numel() == 1]
    assert numbers
    assert all(torch.equal(value.half().float(), value) for value in numbers)
