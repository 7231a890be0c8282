# SPDX-License-Identifier: Apache-2.0
"""Logical and bitwise operators against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    TARGETS,
    Case,
    Checker,
    boolean,
    converted,
    dynamic,
    given,
    i32,
    i64,
    refusal,
)

aten = torch.ops.aten
BATCH = {0: (1, 4, 8)}
NUMBERS = given([0.0, -0.0, 2.5, -1.0])
LONG = given([2**63 - 1, -(2**63), -77, 1 << 40], torch.int64)
SHIFTS = given([0, 1, 2, 3, 4], torch.int64)
WORDS = given([2**31 - 1, -(2**31), -77, 1], torch.int32)
FAR = given([31, 31, -2, 40], torch.int32)
BYTES = given([0, 255, 129, 6], torch.uint8)
LOWEST_BIT = Case(aten.bitwise_and.Scalar, i64(9, low=-99, high=99), 1)

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
    *(
        case
        for op in (aten.bitwise_and, aten.bitwise_or, aten.bitwise_xor)
        for case in (
            Case(op.Tensor, WORDS, given([[-1], [12], [0], [-(2**31)]], torch.int32)),
            Case(op.Tensor, dynamic(i64(4, 1, low=-99, high=99), BATCH), i64(3, low=-99, high=99)),
            Case(op.Tensor, i64(9), boolean(9)),
            Case(op.Tensor, BYTES, given([7, 255, 128, 1], torch.uint8)),
            Case(op.Scalar, WORDS, 0x55),
            Case(op.Scalar, i64(9, low=-99, high=99), -8),
            Case(op.Scalar_Tensor, 6, i64(9)),
        )
    ),
    LOWEST_BIT,
    Case(aten.bitwise_not.default, boolean(9)),
    Case(aten.bitwise_not.default, i64(9)),
    Case(aten.bitwise_not.default, BYTES),
    Case(aten.bitwise_left_shift.Tensor, i64(5), SHIFTS),
    Case(aten.bitwise_left_shift.Tensor_Scalar, i32(5), 3),
    Case(aten.__lshift__.Scalar, i64(5), 3),
    Case(aten.bitwise_right_shift.Tensor, i64(5, low=-99, high=99), SHIFTS),
    Case(aten.bitwise_right_shift.Tensor_Scalar, i64(5, low=-99, high=99), 3),
    Case(aten.__lshift__.Tensor, WORDS, FAR),
    Case(aten.bitwise_left_shift.Tensor, BYTES, given([1, 7, 8, 0], torch.uint8)),
    Case(aten.bitwise_left_shift.Tensor_Scalar, WORDS, 40),
    Case(aten.bitwise_left_shift.Scalar_Tensor, 3, SHIFTS),
    Case(aten.__rshift__.Tensor, WORDS, FAR),
    Case(aten.bitwise_right_shift.Tensor_Scalar, WORDS, 31),
    Case(aten.bitwise_right_shift.Tensor_Scalar, WORDS, -1),
    Case(aten.bitwise_right_shift.Scalar_Tensor, -99, SHIFTS),
    Case(aten.__rshift__.Scalar, dynamic(i64(4, low=-99, high=99), BATCH), 3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_an_and_with_a_number_looks_at_its_bits_only() -> None:
    (one,) = (c for n, c in converted(LOWEST_BIT).constants.items() if "weights" in n)
    assert one.flatten().tolist() == [1]


@pytest.mark.parametrize("target", TARGETS[:2])
def test_int64_has_64_bits_from_tensorrt_10_on(
    target: str, check: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.packager.converters.harness.TARGETS", (target,))
    for op in (aten.bitwise_and, aten.bitwise_or, aten.bitwise_xor):
        check(Case(op.Tensor, LONG, given([-1, 2**62 - 5, -(2**63), 3 << 40], torch.int64)))
    for op in (aten.bitwise_left_shift, aten.bitwise_right_shift):
        check(Case(op.Tensor, LONG, given([40, 63, 62, 64], torch.int64)))


def test_bits_need_a_dim_of_their_own() -> None:
    full = i64(*(1,) * 8)
    reason = refusal(aten.bitwise_and.Tensor, full, full)
    assert reason == "bits of integers are taken apart in a dim of their own, beyond 8"
    small = given([1, 2], torch.int8)
    reason = refusal(aten.bitwise_and.Tensor, small, small)
    assert reason == "TensorRT does not compute in int8"
