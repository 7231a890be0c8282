# SPDX-License-Identifier: Apache-2.0
"""Sums, products and extrema from the start of a dim against eager PyTorch."""

from __future__ import annotations

import math

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    bf16,
    boolean,
    dynamic,
    f32,
    given,
    i32,
    i64,
    kinds,
)

aten = torch.ops.aten
BYTES = given([9, 200, 100, 7], torch.uint8)
BOTH = {0: (1, 4, 8), 1: (1, 5, 9)}
ODD = given([[1.0, math.nan, 3.0, math.nan, 0.0], [-math.inf, 2.0, 2.0, math.inf, math.inf]])
LARGE = given([2**40, 1, -(2**40), 2**24, 1, 1], torch.int64)

CASES = [
    Case(aten.cumsum.default, f32(3, 4), 1),
    Case(aten.cumsum.default, f32(3, 4, 2), 0),
    Case(aten.cumsum.default, f32(3, 4, 2), -2),
    Case(aten.cumsum.default, f32(6), 0),
    Case(aten.cumsum.default, f32(), 0),
    Case(aten.cumsum.default, i32(3, 4), 1),
    Case(aten.cumsum.default, boolean(3, 4), 1),
    Case(aten.cumsum.default, bf16(3, 40), 1),
    Case(aten.cumsum.default, i64(3, 4), 1, dtype=torch.float32),
    Case(aten.cumsum.default, dynamic(i64(4, 5), {0: (1, 4, 8), 1: (1, 5, 9)}), 1),
    Case(aten.cumsum.default, dynamic(f32(4, 5), {0: (1, 4, 8), 1: (1, 5, 9)}), 0),
    Case(aten.cumsum.default, LARGE, 0),
    Case(aten.cumsum.default, BYTES, 0, dtype=torch.uint8),
    Case(aten.cumprod.default, f32(2, 4, 3, low=-1.5, high=1.5), 1),
    Case(aten.cumprod.default, f32(5, low=-1.5, high=1.5), -1),
    Case(aten.cumprod.default, f32(), 0),
    Case(aten.cumprod.default, i64(2, 4), 0),
    Case(aten.cumprod.default, i64(4), 0, dtype=torch.float32),
    Case(
        aten.cumprod.default,
        dynamic(f32(2, 4, low=-1.5, high=1.5), {0: (1, 2, 5), 1: (1, 4, 6)}),
        1,
    ),
    *(
        case
        for op in (aten.cummax.default, aten.cummin.default)
        for case in (
            Case(op, ODD, 1),
            Case(op, f32(2, 5, 3), -2),
            Case(op, i64(4, 5), 1),
            Case(op, f32(), 0),
            Case(op, BYTES, 0),
            Case(op, boolean(3, 5), 1),
            Case(op, dynamic(f32(4, 5), BOTH), 1),
        )
    ),
    Case(aten.logcumsumexp.default, f32(2, 5, 3), 1),
    Case(aten.logcumsumexp.default, ODD, 1),
    Case(aten.logcumsumexp.default, f32(2, 9, low=-200, high=200), -1),
    Case(aten.logcumsumexp.default, f32(), 0),
    Case(aten.logcumsumexp.default, dynamic(f32(4, 5), BOTH), 0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_a_cumulative_sum_is_one_layer_where_tensorrt_has_it() -> None:
    case = Case(aten.cumsum.default, f32(3, 4), 1)
    assert kinds(case) == ["cumulative"]
    assert kinds(case, "orin@jetpack-6.2") == ["matrix_multiply"]
