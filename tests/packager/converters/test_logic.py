# SPDX-License-Identifier: Apache-2.0
"""Logical and bitwise operators against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    boolean,
    dynamic,
    f32,
    given,
    i32,
    i64,
    refusal,
)

aten = torch.ops.aten
BATCH = {0: (1, 4, 8)}
NUMBERS = given([0.0, -0.0, 2.5, -1.0])
SHIFTS = given([0, 1, 2, 3, 4], torch.int64)

CASES = [
    *(
        case
        for op in (aten.logical_and, aten.logical_or, aten.logical_xor)
        for case in (
            Case(op.default, boolean(9), boolean(9)),
            Case(op.default, NUMBERS, boolean(3, 4)),
            Case(op.default, i64(9, low=0, high=2), boolean()),
            Case(op.default, dynamic(boolean(4, 3), BATCH), boolean(3)),
        )
    ),
    Case(aten.logical_not.default, boolean(9)),
    Case(aten.logical_not.default, NUMBERS),
    Case(aten.logical_not.default, dynamic(i64(4, low=0, high=2), BATCH)),
    *(
        case
        for op in (aten.bitwise_and, aten.bitwise_or, aten.bitwise_xor)
        for case in (
            Case(op.Tensor, boolean(9), boolean(9)),
            Case(op.Tensor, dynamic(boolean(4, 1), BATCH), boolean(3)),
            Case(op.Scalar, boolean(9), True),
        )
    ),
    Case(aten.bitwise_not.default, boolean(9)),
    Case(aten.bitwise_not.default, i64(9)),
    Case(aten.bitwise_left_shift.Tensor, i64(5), SHIFTS),
    Case(aten.bitwise_left_shift.Tensor_Scalar, i32(5), 3),
    Case(aten.__lshift__.Scalar, i64(5), 3),
    Case(aten.bitwise_right_shift.Tensor, i64(5, low=-99, high=99), SHIFTS),
    Case(aten.bitwise_right_shift.Tensor_Scalar, i64(5, low=-99, high=99), 3),
    Case(aten.__rshift__.Scalar, dynamic(i64(4, low=-99, high=99), BATCH), 3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_bits_of_integers_stay_in_pytorch() -> None:
    reason = refusal(aten.bitwise_and.Tensor, i64(3), i64(3))
    assert reason == "TensorRT has AND, OR and XOR of truth values, not of the bits of integers"
    assert refusal(aten.logical_and.default, f32(3), f32(3)) is None
