# SPDX-License-Identifier: Apache-2.0
"""Choosing by a condition against eager PyTorch."""

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
    i64,
    weight,
)

aten = torch.ops.aten
BATCH = {0: (1, 4, 8)}

CASES = [
    Case(aten.where.self, boolean(4, 3), f32(4, 3), f32(3)),
    Case(aten.where.self, boolean(4, 1), f32(), i64(3)),
    Case(aten.where.self, boolean(3), boolean(3), boolean(3)),
    Case(aten.where.self, boolean(3), f16(3), f32(3)).float32_only("the types are the point"),
    Case(aten.where.self, dynamic(boolean(4, 1), BATCH), f32(3), dynamic(f32(4, 3), BATCH)),
    Case(aten.where.self, weight(boolean(3)), weight(f32(3)), f32(2, 3)),
    Case(aten.where.ScalarOther, boolean(4, 3), f32(3), 0.5),
    Case(aten.where.ScalarSelf, boolean(4, 3), -math.inf, f32(3)),
    Case(aten.where.Scalar, boolean(4, 3), 1.0, 0.0),
    Case(aten.masked_fill.Scalar, f32(4, 3), boolean(3), -math.inf),
    Case(aten.masked_fill.Scalar, f32(4, 3), boolean(4, 1), 2),
    Case(aten.masked_fill.Scalar, i64(4, 3), boolean(4, 3), 2),
    Case(aten.masked_fill.Scalar, dynamic(f32(4, 3), BATCH), boolean(3), -1e4),
    Case(aten.masked_fill.Tensor, f32(4, 3), boolean(3), f32()),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)
