# SPDX-License-Identifier: Apache-2.0
"""Sums, products, quotients and powers against eager PyTorch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given as property_given
from hypothesis import settings
from hypothesis import strategies as st

from tests.packager.converters.harness import (
    Case,
    Checker,
    bf16,
    boolean,
    dynamic,
    f16,
    f32,
    given,
    i32,
    i64,
    kinds,
    refusal,
    size,
    weight,
)

aten = torch.ops.aten
BATCH = {0: (1, 4, 8)}
WHOLE = i64(40, low=-20, high=20)
PIXELS = given([0, 1, 127, 255], torch.uint8)
STEP = given([-7, -3, -1, 2, 5] * 8, torch.int64)
BYTES = given([0, 255, 100, 7], torch.uint8)
SMALL = given([1, 2, 30, 200], torch.uint8)

CASES = [
    Case(aten.add.Tensor, f32(2, 3), f32(2, 3)),
    Case(aten.add.Tensor, f32(2, 3), f32(3)),
    Case(aten.add.Tensor, f32(2, 1), f32(1, 3), alpha=2),
    Case(aten.add.Tensor, f32(2, 3), f32()),
    Case(aten.add.Tensor, f32(), f32()),
    Case(aten.add.Tensor, f32(2, 3), 1.5),
    Case(aten.add.Tensor, f32(2, 3), 1e30),
    Case(aten.add.Tensor, i64(2, 3), 1.5),
    Case(aten.add.Tensor, i64(2, 3), 2, alpha=3),
    Case(aten.add.Tensor, i64(2, 3), f32(2, 3)),
    Case(aten.add.Tensor, i64(2, 3), f32()),
    Case(aten.add.Tensor, i32(2, 3), i64(2, 3)),
    Case(aten.add.Tensor, i32(2, 3), i64()),
    Case(aten.add.Tensor, f16(2, 3), f32(2, 3)).float32_only("the types are the point"),
    Case(aten.add.Tensor, f16(2, 3), f32()).float32_only("the types are the point"),
    Case(aten.add.Tensor, bf16(2, 3), bf16(3)),
    Case(aten.add.Tensor, boolean(2, 3), boolean(2, 3)),
    Case(aten.add.Tensor, boolean(2, 3), boolean(3), alpha=False),
    Case(aten.add.Tensor, boolean(2, 3), 1),
    Case(aten.add.Tensor, boolean(2, 3), f32(2, 3)),
    Case(aten.add.Tensor, dynamic(f32(4, 3), BATCH), weight(f32(3))),
    Case(aten.add.Tensor, dynamic(f32(4, 3), BATCH), dynamic(f32(4, 1), BATCH)),
    Case(aten.add.Tensor, weight(f32(3)), weight(f32(2, 3))),
    Case(aten.add.Tensor, weight(i64(3)), weight(i64(3))),
    Case(aten.add.Tensor, dynamic(i64(4), BATCH), size(0, 0)),
    Case(aten.add.Scalar, f32(2, 3), 2, 3),
    Case(aten.sub.Tensor, f32(2, 3), f32(3), alpha=0.5),
    Case(aten.sub.Tensor, f32(2, 3), 2),
    Case(aten.sub.Tensor, i64(2, 3), i32(3)),
    Case(aten.sub.Scalar, i64(2, 3), 2),
    Case(aten.rsub.Scalar, f32(2, 3), 1),
    Case(aten.rsub.Scalar, i64(2, 3), 1.5, 2),
    Case(aten.rsub.Tensor, f32(2, 3), f32(3), alpha=2),
    Case(aten.mul.Tensor, f32(2, 3), f32(3)),
    Case(aten.mul.Tensor, f32(2, 3), 1e-7),
    Case(aten.mul.Tensor, f32(2, 3, low=1e-4, high=1e-3), 1e6),
    Case(aten.mul.Tensor, boolean(5), boolean(5)),
    Case(aten.mul.Tensor, boolean(5), f32(5)),
    Case(aten.mul.Tensor, dynamic(f32(4, 3), BATCH), size(0, 0)),
    Case(aten.mul.Scalar, i64(5), 3),
    Case(aten.mul.Tensor, given([0, 1, 255], torch.uint8), 1 / 255),
    Case(aten.add.Tensor, PIXELS, PIXELS),
    Case(aten.add.Tensor, PIXELS, 7, alpha=40),
    Case(aten.add.Tensor, PIXELS, boolean(4)),
    Case(aten.sub.Tensor, PIXELS, 7),
    Case(aten.rsub.Scalar, PIXELS, 1),
    Case(aten.mul.Tensor, PIXELS, PIXELS),
    Case(aten.div.Tensor, f32(2, 3), f32(3)),
    Case(aten.div.Tensor, i64(2, 3), i64(2, 3)),
    Case(aten.div.Tensor, i64(2, 3), 4),
    Case(aten.div.Tensor, boolean(4), 2),
    Case(aten.div.Tensor, f32(4), 1e-8),
    Case(aten.div.Tensor, dynamic(f32(4, 3), BATCH), dynamic(f32(4, 1), BATCH)),
    Case(aten.div.Scalar, f32(4), 3),
    Case(aten.true_divide.Tensor, i64(4), f32(4)),
    Case(aten.true_divide.Scalar, i64(4), 3),
    Case(aten.div.Tensor_mode, f32(40, low=-9, high=9), f32(40), rounding_mode=None),
    Case(aten.div.Tensor_mode, f32(40, low=-9, high=9), f32(40), rounding_mode="floor"),
    Case(aten.div.Tensor_mode, f32(40, low=-9, high=9), f32(40), rounding_mode="trunc"),
    Case(aten.div.Tensor_mode, WHOLE, STEP, rounding_mode="floor"),
    Case(aten.div.Tensor_mode, WHOLE, STEP, rounding_mode="trunc"),
    Case(aten.div.Tensor_mode, WHOLE, STEP, rounding_mode=None),
    Case(aten.div.Scalar_mode, WHOLE, 3, rounding_mode="floor"),
    Case(aten.div.Scalar_mode, WHOLE, -3, rounding_mode="trunc"),
    Case(aten.floor_divide.default, WHOLE, STEP),
    Case(aten.floor_divide.default, dynamic(f32(4, 3), BATCH), 2),
    Case(aten.floor_divide.Scalar, WHOLE, 4),
    Case(aten.remainder.Tensor, WHOLE, STEP),
    Case(aten.remainder.Tensor, f32(40, low=-9, high=9), f32(40)),
    Case(aten.remainder.Scalar, WHOLE, -4),
    Case(aten.remainder.Scalar, f32(40, low=-30, high=30), 0.3),
    Case(aten.remainder.Scalar_Tensor, 7, STEP),
    Case(aten.fmod.Tensor, WHOLE, STEP),
    Case(aten.fmod.Tensor, f32(40, low=-9, high=9), f32(40)),
    Case(aten.fmod.Scalar, WHOLE, -4),
    Case(aten.pow.Tensor_Scalar, f32(20), 2),
    Case(aten.pow.Tensor_Scalar, f32(20), 2.0),
    Case(aten.pow.Tensor_Scalar, f32(20), 3),
    Case(aten.pow.Tensor_Scalar, f32(20), 1),
    Case(aten.pow.Tensor_Scalar, f32(20), 0),
    Case(aten.pow.Tensor_Scalar, f32(20, low=0.1, high=3), 0.5),
    Case(aten.pow.Tensor_Scalar, f32(20, low=0.1, high=3), -0.5),
    Case(aten.pow.Tensor_Scalar, f32(20), -1),
    Case(aten.pow.Tensor_Scalar, f32(20, low=-3, high=-0.5), -3),
    Case(aten.pow.Tensor_Scalar, f32(20, low=-1, high=1), 7),
    Case(aten.pow.Tensor_Scalar, f32(20, low=-1, high=3), 1.7),
    Case(aten.pow.Tensor_Scalar, i64(20), 5),
    Case(aten.pow.Tensor_Scalar, i64(20), 2.5),
    Case(aten.pow.Tensor_Scalar, dynamic(f32(4, 3), BATCH), 0),
    Case(aten.pow.Tensor_Tensor, f32(4, 3, low=0.1, high=3), f32(3)),
    Case(aten.pow.Tensor_Tensor, i64(5), i64(5, low=0, high=4)),
    Case(aten.pow.Scalar, 2, f32(4, 3)),
    Case(aten.pow.Scalar, 2, i64(5, low=0, high=4)),
    Case(aten.addcmul.default, f32(4, 3), f32(4, 1), f32(3), value=0.5),
    Case(aten.addcdiv.default, f32(4, 3), f32(4, 1), f32(3, low=1, high=2), value=0.5),
    Case(aten.lerp.Scalar, f32(4, 3), f32(3), 0.3),
    *(Case(aten.div.Tensor_mode, BYTES, SMALL, rounding_mode=mode) for mode in ("floor", "trunc")),
    *(Case(op.Tensor, BYTES, SMALL) for op in (aten.remainder, aten.fmod)),
    Case(aten.floor_divide.Scalar, BYTES, 7),
    Case(aten.lerp.Tensor, f32(4, 3), f32(3), f32(4, 1)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_products_and_roots_stand_for_simple_powers() -> None:
    assert kinds(Case(aten.pow.Tensor_Scalar, f32(3), 2)) == ["elementwise"]
    assert kinds(Case(aten.pow.Tensor_Scalar, f32(3), -0.5)) == ["unary", "unary"]
    assert kinds(Case(aten.pow.Tensor_Scalar, f32(3), 1)) == []


def test_arithmetic_in_int8_stays_in_pytorch() -> None:
    small, pixels = (given([1, 2, 100], dtype) for dtype in (torch.int8, torch.uint8))
    assert refusal(aten.add.Tensor, small, small) == "TensorRT does not compute in int8"
    assert refusal(aten.abs.default, pixels) == "TensorRT does not compute in uint8"


@pytest.mark.parametrize("build", [False, pytest.param(True, marks=pytest.mark.slow)])
@settings(max_examples=20, deadline=None)
@property_given(
    st.lists(st.integers(-1000, 1000), min_size=1, max_size=8),
    st.integers(-50, 50).filter(bool),
    st.sampled_from(["floor", "trunc"]),
)
def test_integer_rounding(build: bool, values: list[int], divisor: int, mode: str) -> None:
    whole = given(values, torch.int64)
    Checker()(Case(aten.div.Tensor_mode, whole, divisor, rounding_mode=mode), build=build)
    Checker()(Case(aten.remainder.Scalar, whole, divisor), build=build)
    Checker()(Case(aten.fmod.Scalar, whole, divisor), build=build)
