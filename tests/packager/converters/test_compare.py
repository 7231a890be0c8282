# SPDX-License-Identifier: Apache-2.0
"""Comparisons against eager PyTorch."""

from __future__ import annotations

import math

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    boolean,
    dynamic,
    f16,
    f32,
    given,
    i32,
    i64,
    size,
)

aten = torch.ops.aten
BATCH = {0: (1, 4, 8)}
TENSOR = [aten.eq, aten.ne, aten.gt, aten.lt, aten.ge, aten.le]
PIXELS = given([0, 1, 3, 255], torch.uint8)
ODD = given([math.nan, 1.0, math.inf, -1.0])

CASES = [
    case
    for op in TENSOR
    for case in (
        Case(op.Tensor, f32(2, 3), f32(2, 3)),
        Case(op.Tensor, i64(2, 9), i64(9)),
        Case(op.Tensor, i64(2, 9), f32()),
        Case(op.Tensor, i32(9), i64(9)),
        Case(op.Tensor, boolean(9), boolean(9)),
        Case(op.Tensor, ODD, given([math.nan, 1.0, 1.0, 1.0])),
        Case(op.Tensor, f16(3), f32(3)).float32_only("the types are the point"),
        Case(op.Tensor, dynamic(f32(4, 3), BATCH), dynamic(f32(4, 1), BATCH)),
        Case(op.Scalar, f32(9), 0.5),
        Case(op.Scalar, i64(9), 0.5),
        Case(op.Scalar, i64(9), 2),
        Case(op.Scalar, boolean(9), 1),
        Case(op.Scalar, ODD, 1.0),
        Case(op.Scalar, PIXELS, 3),
        Case(op.Tensor, PIXELS, i64(4)),
        Case(op.Scalar, dynamic(i64(4), BATCH), size(0, 0)),
    )
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)
