# SPDX-License-Identifier: Apache-2.0
"""Maximum, minimum and clamping against eager PyTorch."""

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

CASES = [
    *(
        case
        for op in (aten.maximum.default, aten.minimum.default, aten.max.other, aten.min.other)
        for case in (
            Case(op, f32(2, 3), f32(3)),
            Case(op, i64(9), i32(9)),
            Case(op, i64(9), f32(9)),
            Case(op, boolean(9), boolean(9)),
            Case(op, dynamic(f32(4, 3), BATCH), f32()),
        )
    ),
    Case(aten.clamp.default, f32(20), -1, 2),
    Case(aten.clamp.default, bf16(20), -1, 2),
    Case(aten.clamp.default, f32(20), 2, -1),
    Case(aten.clamp.default, f32(20), min=0.5),
    Case(aten.clamp.default, f32(20), min=0),
    Case(aten.clamp.default, f32(20), max=0.5),
    Case(aten.clamp.default, f32(20), -math.inf, 1.0),
    Case(aten.clamp.default, f32(20), 0.0, math.inf),
    Case(aten.clamp.default, i64(20), -1, 2),
    Case(aten.clamp.default, i64(20), 2, -1),
    Case(aten.clamp.default, i64(20), 0.5),
    Case(aten.clamp.default, i64(20), min=0),
    Case(aten.clamp.default, dynamic(f32(4, 3), BATCH), 0, 6),
    Case(aten.clamp.Tensor, f32(4, 3), f32(3), f32(4, 1)),
    Case(aten.clamp.Tensor, f32(4, 3), max=f32()),
    Case(aten.clamp.Tensor, i64(4, 3), min=f32(3)),
    Case(aten.clamp_min.default, f32(20), 0),
    Case(aten.clamp_min.default, i64(20), 1),
    Case(aten.clamp_min.Tensor, dynamic(f32(4, 3), BATCH), f32(3)),
    Case(aten.clamp_min.Tensor, boolean(9), boolean(9)),
    Case(aten.clamp_max.Tensor, boolean(9), boolean(9)),
    Case(aten.maximum.default, BYTES, given([3], torch.uint8)),
    Case(aten.clamp.default, BYTES, 4, 200),
    Case(aten.clamp_max.default, f32(20), 1),
    Case(aten.clamp_max.Tensor, f32(4, 3), f32(3)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_clamping_is_one_layer() -> None:
    assert kinds(Case(aten.clamp.default, f32(3), 0, 6)) == ["activation"]
    assert kinds(Case(aten.clamp.default, f32(3), 0)) == ["activation"]
