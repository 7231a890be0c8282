# SPDX-License-Identifier: Apache-2.0
"""Pooling against eager PyTorch."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    dynamic,
    f32,
    given,
    i64,
    kinds,
    refusal,
    size,
)

aten = torch.ops.aten
MAX2, AVG2 = aten.max_pool2d.default, aten.avg_pool2d.default
IMAGE, LINE, VOLUME = f32(2, 3, 9, 8), f32(2, 3, 10), f32(1, 3, 6, 7, 5)
ANY_IMAGE = dynamic(f32(2, 3, 9, 8), {0: (1, 2, 4), 2: (6, 9, 12), 3: (5, 8, 11)})
ANY_LINE = dynamic(f32(2, 3, 10), {0: (1, 2, 4), 2: (6, 10, 13)})

NO_HALF = "PyTorch has no avg_pool3d of float16 on a CPU"

WHOLE = given([[[[7, 1, 9], [3, 5, -8], [2, 6, 4]]]], torch.int64)

MAX = [
    Case(MAX2, IMAGE, [3, 3], [2, 2], [1, 1]),
    Case(MAX2, IMAGE, [2, 2]),
    Case(MAX2, i64(2, 3, 9, 8, low=-500, high=500), [3, 3], [2, 2], [1, 1], [1, 1], True),
    Case(MAX2, IMAGE, [3], [2], [1]),
    Case(MAX2, f32(3, 9, 8), [3, 2], [1, 2]),
    Case(MAX2, IMAGE, [3, 3], [2, 2], [0, 0], [1, 1], True),
    Case(MAX2, IMAGE, [2, 2], [3, 3], [1, 1], [1, 1], True),
    Case(MAX2, IMAGE, [5, 5], [1, 1], [2, 2]),
    Case(MAX2, IMAGE, [3, 2], [1, 2], [1, 1], [2, 3]),
    Case(MAX2, IMAGE, [3, 3], [2, 2], [1, 1], [2, 2], True),
    Case(MAX2, ANY_IMAGE, [3, 3], [2, 2], [1, 1]),
    Case(MAX2, ANY_IMAGE, [3, 3], [2, 2], [1, 1], [1, 1], True),
    Case(MAX2, ANY_IMAGE, [2, 2], [3, 3], [1, 1], [1, 1], True),
    Case(MAX2, ANY_IMAGE, [2, 2], [2, 2], [0, 0], [2, 2], True),
    Case(aten.max_pool1d.default, LINE, [3], [2], [1]),
    Case(aten.max_pool1d.default, f32(3, 10), [4], [], [0], [1], True),
    Case(aten.max_pool1d.default, dynamic(LINE, {0: (1, 2, 4)}), [3], [2], [1], [2]),
    Case(aten.max_pool3d.default, VOLUME, [2, 2, 2]),
    Case(aten.max_pool3d.default, VOLUME, [3, 3, 3], [2, 2, 2], [1, 1, 1], [1, 1, 1], True),
    Case(aten.max_pool3d.default, VOLUME, [2, 2, 2], [1, 1, 1], [0, 0, 0], [2, 2, 2]),
]
INDICES = [
    Case(aten.max_pool2d_with_indices.default, WHOLE, [2, 2]),
    Case(aten.max_pool2d_with_indices.default, IMAGE, [3, 3], [2, 2], [1, 1]),
    Case(aten.max_pool2d_with_indices.default, f32(3, 9, 8), [2, 3], [], [0, 1], [2, 1], True),
    Case(aten.max_pool2d_with_indices.default, ANY_IMAGE, [3, 3], [2, 2], [1, 1]),
    Case(aten.max_pool3d_with_indices.default, VOLUME, [2, 2, 2], [2, 2, 2], [1, 0, 1]),
]
AVERAGE = [
    *(
        Case(AVG2, f32(2, 3, size, 8), kernel, stride, padding, ceil, count)
        for size, (kernel, stride, padding), ceil, count in itertools.product(
            (9, 10),
            (([3, 3], [2, 2], [1, 1]), ([2, 3], [3, 2], [1, 0]), ([4, 4], [3, 3], [2, 1])),
            (False, True),
            (False, True),
        )
    ),
    Case(AVG2, IMAGE, [2, 2]),
    Case(AVG2, IMAGE, [3, 3], [2, 2], [1, 1], False, True, 5),
    Case(AVG2, IMAGE, [3, 3], [2, 2], [1, 1], True, False, 7),
    Case(AVG2, f32(3, 9, 8), [9, 8]),
    Case(AVG2, ANY_IMAGE, [3, 3], [2, 2], [1, 1]),
    Case(AVG2, ANY_IMAGE, [3, 3], [2, 2], [1, 1], True, True),
    Case(AVG2, ANY_IMAGE, [2, 2], [3, 3], [1, 1], True, False),
    Case(AVG2, ANY_IMAGE, [3, 3], [2, 2], [1, 1], True, True, 4),
    Case(aten.avg_pool1d.default, LINE, [3], [2], [1]),
    Case(aten.avg_pool1d.default, ANY_LINE, [4], [3], [1], True, False),
    Case(aten.avg_pool3d.default, VOLUME, [2, 2, 2], [2, 2, 2], [1, 1, 1]).float32_only(NO_HALF),
    Case(aten.avg_pool3d.default, VOLUME, [3, 2, 2], [2, 2, 2], [1, 1, 0], True, True).float32_only(
        NO_HALF
    ),
]
ADAPTIVE = [
    Case(aten.adaptive_avg_pool2d.default, IMAGE, [1, 1]),
    Case(aten.adaptive_avg_pool2d.default, ANY_IMAGE, [1, 1]),
    Case(aten.adaptive_avg_pool2d.default, IMAGE, [3, 4]),
    Case(aten.adaptive_avg_pool2d.default, IMAGE, [7, 1]),
    Case(aten.adaptive_avg_pool2d.default, IMAGE, [4, 5]),
    Case(aten.adaptive_avg_pool2d.default, f32(3, 9, 8), [12, 8]),
    Case(aten.adaptive_avg_pool2d.default, ANY_IMAGE, [4, 13]),
    Case(aten.adaptive_avg_pool2d.default, ANY_IMAGE, [size(0, 2, lambda s: s - 1), 3]),
    Case(aten.adaptive_avg_pool2d.default, dynamic(IMAGE, {0: (1, 2, 4)}), [7, 7]),
    Case(aten._adaptive_avg_pool2d.default, IMAGE, [6, 6]),
    Case(aten.adaptive_avg_pool1d.default, LINE, [5]),
    Case(aten.adaptive_avg_pool1d.default, f32(3, 10), [4]),
    Case(aten.adaptive_avg_pool1d.default, ANY_LINE, [1]),
    Case(aten.adaptive_avg_pool3d.default, VOLUME, [3, 7, 1]),
    Case(aten.adaptive_avg_pool3d.default, VOLUME, [4, 3, 2]),
    Case(aten._adaptive_avg_pool3d.default, VOLUME, [1, 1, 1]),
]
SIZED = [
    Case(aten.adaptive_max_pool2d.default, IMAGE, [1, 1]),
    Case(aten.adaptive_max_pool2d.default, IMAGE, [3, 4]),
    Case(aten.adaptive_max_pool2d.default, IMAGE, [4, 5]),
    Case(aten.adaptive_max_pool2d.default, ANY_IMAGE, [1, 1]),
    Case(aten.adaptive_max_pool1d.default, LINE, [4]),
    Case(aten.adaptive_max_pool1d.default, ANY_LINE, [4]),
    Case(aten.adaptive_max_pool2d.default, ANY_IMAGE, [4, 13]),
    Case(aten.adaptive_max_pool1d.default, f32(3, 10), [1]),
    Case(aten.adaptive_max_pool3d.default, VOLUME, [3, 2, 5]),
]


@pytest.mark.parametrize("case", [*MAX, *INDICES, *AVERAGE, *ADAPTIVE, *SIZED], ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_a_pooling_is_one_layer() -> None:
    assert kinds(Case(MAX2, IMAGE, [3, 3], [2, 2], [1, 1], [1, 1], True)) == ["pooling_nd"]
    assert kinds(Case(AVG2, IMAGE, [3, 3], [2, 2], [1, 1])) == ["pooling_nd"]
    assert kinds(Case(aten.adaptive_avg_pool2d.default, ANY_IMAGE, [1, 1])) == ["reduce"]


def test_averages_of_whole_numbers_stay_in_pytorch() -> None:
    reason = refusal(AVG2, i64(1, 1, 4, 4), [2, 2])
    assert reason == "TensorRT computes this in floats only, got int64"
