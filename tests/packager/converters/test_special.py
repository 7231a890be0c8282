# SPDX-License-Identifier: Apache-2.0
"""Functions TensorRT has no layer for, against eager PyTorch."""

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
BYTES = given([0, 255, 7], torch.uint8)
BATCH = {0: (1, 4, 8)}
ZEROS = given([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, 2.5, -0.5])
SIGNS = given([-0.0, 0.0, -1.0, 1.0, -math.inf, math.inf, -3.0, 0.5])
ODD = given([math.nan, 1.0, math.nan, math.inf, -math.inf, math.inf, 0.0, 2.0])
BESIDE = given([2.0, math.nan, math.nan, math.inf, -math.inf, -math.inf, math.nan, 0.0])

CASES = [
    Case(aten.signbit.default, ZEROS),
    Case(aten.signbit.default, i64(9)),
    Case(aten.signbit.default, boolean(9)),
    Case(aten.signbit.default, BYTES),
    Case(aten.copysign.Tensor, f32(3), BYTES),
    Case(aten.signbit.default, dynamic(f32(4, 3), BATCH)),
    Case(aten.copysign.Tensor, ZEROS, SIGNS),
    Case(aten.copysign.Tensor, i32(4, 1), f32(3)),
    Case(aten.copysign.Tensor, f32(9), i64(9)),
    Case(aten.copysign.Scalar, f32(9), -0.0),
    Case(aten.copysign.Scalar, dynamic(i64(4, 3), BATCH), 2),
    Case(aten.atan2.default, f32(40), f32(40)),
    Case(aten.atan2.default, f32(4, 1), f32(3)),
    Case(aten.atan2.default, given([0.0, 0, 1, -1, 0, 2]), given([0.0, 1, 0, 0, -1, -3])),
    Case(aten.atan2.default, i64(5), i64(5)),
    Case(aten.atan2.default, ZEROS, SIGNS),
    Case(aten.atan2.default, SIGNS, ZEROS),
    Case(aten.atan2.default, dynamic(f32(4, 3), BATCH), f32()),
    Case(aten.angle.default, ODD),
    Case(aten.angle.default, i64(9)),
    Case(aten.nan_to_num.default, ODD),
    Case(aten.nan_to_num.default, ODD, 7.0, 5.0),
    Case(aten.nan_to_num.default, ODD, neginf=-5.0),
    Case(aten.nan_to_num.default, bf16(4)),
    Case(aten.nan_to_num.default, i64(4)),
    Case(aten.nan_to_num.default, dynamic(f32(4, 3), BATCH)),
    Case(aten.sinc.default, given([0.0, 0.5, -1.5, 3.0])),
    Case(aten.sinc.default, i64(9)),
    Case(aten.sinc.default, dynamic(f32(4, 3), BATCH)),
    Case(aten.xlogy.Tensor, f32(3, 1), f32(4, low=0.1)),
    Case(aten.xlogy.Tensor, given([0.0, 0.0, 0.0, 2.0]), given([0.0, math.nan, -1.0, 0.0])),
    Case(aten.xlogy.Tensor, i64(9, low=0), i64(9, low=1)),
    Case(aten.xlogy.Scalar_Self, 0, f32(9)),
    Case(aten.xlogy.Scalar_Other, dynamic(f32(4, 3), BATCH), 2),
    *(
        case
        for op in (aten.logaddexp.default, aten.logaddexp2.default)
        for case in (
            Case(op, f32(3, 1), f32(4)),
            Case(op, ODD, BESIDE),
            Case(op, given([50.0, -80.0]), given([-50.0, -80.0])),
            Case(op, dynamic(f32(4, 3), BATCH), f32(3)),
        )
    ),
    Case(aten.ldexp.Tensor, f32(5), i64(5)),
    Case(aten.ldexp.Tensor, dynamic(f32(4, 3), BATCH), i32(3)),
    *(
        case
        for op in (aten.fmax.default, aten.fmin.default)
        for case in (
            Case(op, ODD, BESIDE),
            Case(op, f32(3, 1), f32(4)),
            Case(op, i64(9), i32(9)),
            Case(op, boolean(9), boolean(9)),
            Case(op, BYTES, BYTES),
            Case(op, dynamic(f32(4, 3), BATCH), f32()),
        )
    ),
    Case(aten.erfinv.default, f32(200, low=-1, high=1)),
    Case(aten.erfinv.default, given([1.0, -1.0, 0.0, -0.9999, 1.5, math.nan])),
    Case(aten.erfinv.default, dynamic(f32(4, 3, low=-0.9, high=0.9), BATCH)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_infinities_are_clipped() -> None:
    assert kinds(Case(aten.nan_to_num.default, f32(3))) == ["unary", "select", "activation"]
