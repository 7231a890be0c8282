# SPDX-License-Identifier: Apache-2.0
"""Functions of one number against eager PyTorch."""

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
    refusal,
)

aten = torch.ops.aten
BATCH = {0: (1, 4, 8)}
UNIT = f32(20, low=-0.99, high=0.99)
POSITIVE = f32(20, low=0.05, high=9)
ODD = given([math.nan, math.inf, -math.inf, 0.0, -2.5, 1e30])
HALVES = given([-3.5, -2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5, 2.4999, 7.0])

CASES = [
    Case(aten.exp.default, f32(4, 3)),
    Case(aten.exp.default, i64(4)),
    Case(aten.exp.default, dynamic(f32(4, 3), BATCH)),
    Case(aten.exp.default, f32()),
    Case(aten.exp2.default, f32(4, 3)),
    Case(aten.expm1.default, f32(4, 3)),
    Case(aten.expm1.default, given([-math.inf, -300.0, -20, -1e-4, 0, 1e-6, 1, 11])),
    Case(aten.log.default, POSITIVE),
    Case(aten.log.default, i64(4, low=1, high=9)),
    Case(aten.log1p.default, POSITIVE),
    Case(aten.log1p.default, given([-3.0, -1.0, -0.999, -0.5, -1e-4, 0, 1e-6, 1, 1e4, math.inf])),
    Case(aten.log2.default, POSITIVE),
    Case(aten.log10.default, POSITIVE),
    Case(aten.sqrt.default, POSITIVE),
    Case(aten.sqrt.default, i64(4, low=0, high=9)),
    Case(aten.rsqrt.default, POSITIVE),
    Case(aten.rsqrt.default, bf16(20, low=0.1, high=4)),
    Case(aten.reciprocal.default, POSITIVE),
    Case(aten.reciprocal.default, i64(4, low=1, high=9)),
    Case(aten.square.default, f32(4, 3)),
    Case(aten.square.default, i64(4)),
    Case(aten.sin.default, f32(4, 3)),
    Case(aten.sin.default, boolean(4)),
    Case(aten.cos.default, dynamic(f32(4, 3), BATCH)),
    Case(aten.tan.default, f32(20, low=-1, high=1)),
    Case(aten.asin.default, UNIT),
    Case(aten.acos.default, UNIT),
    Case(aten.atan.default, f32(20)),
    Case(aten.sinh.default, f32(20)),
    Case(aten.cosh.default, f32(20)),
    Case(aten.asinh.default, f32(20)),
    Case(aten.acosh.default, f32(20, low=1.01, high=9)),
    Case(aten.atanh.default, UNIT),
    Case(aten.erf.default, f32(20)),
    Case(aten.erfc.default, f32(20)),
    Case(aten.hypot.default, f32(4, 3), f32(3)),
    Case(aten.abs.default, f32(4, 3)),
    Case(aten.abs.default, i64(4)),
    Case(aten.neg.default, dynamic(f32(4, 3), BATCH)),
    Case(aten.neg.default, i32(4)),
    Case(aten.sign.default, given([-2.0, -0.0, 0.0, 3.0])),
    Case(aten.sign.default, i64(6)),
    Case(aten.sign.default, boolean(6)),
    Case(aten.ceil.default, f32(20)),
    Case(aten.ceil.default, i64(4)),
    Case(aten.floor.default, f32(20)),
    Case(aten.floor.default, i64(4)),
    Case(aten.round.default, HALVES),
    Case(aten.round.default, i64(4)),
    Case(aten.round.decimals, f32(20), decimals=1),
    Case(aten.round.decimals, f32(20, low=-300, high=300), decimals=-2),
    Case(aten.round.decimals, HALVES, decimals=0),
    Case(aten.trunc.default, HALVES),
    Case(aten.trunc.default, dynamic(f32(4, 3), BATCH)),
    Case(aten.trunc.default, i64(4)),
    Case(aten.frac.default, f32(20)),
    Case(aten.isinf.default, ODD),
    Case(aten.isinf.default, i64(4)),
    Case(aten.isnan.default, ODD),
    Case(aten.isnan.default, dynamic(i64(4), BATCH)),
    Case(aten.isfinite.default, ODD),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_isnan_before_tensorrt_had_it() -> None:
    assert kinds(Case(aten.isnan.default, f32(3)), "orin@jetpack-6.2") == ["unary"]
    assert kinds(Case(aten.isnan.default, f32(3)), "orin@jetpack-6.0") == ["elementwise", "unary"]


def test_bytes_stay_in_pytorch() -> None:
    reason = refusal(aten.neg.default, given([1, 2], torch.int8))
    assert reason == "TensorRT does not compute in int8"
