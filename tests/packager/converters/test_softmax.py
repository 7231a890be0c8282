# SPDX-License-Identifier: Apache-2.0
"""Softmax and its relatives against eager PyTorch."""

from __future__ import annotations

import math

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    bf16,
    dynamic,
    f16,
    f32,
    given,
    i64,
    kinds,
)

aten = torch.ops.aten
BATCH = {0: (1, 4, 8)}
ROWS = given([[-math.inf, 0.0, 1.0], [-math.inf] * 3, [80.0, 90.0, 100.0]])

CASES = [
    *(Case(aten.softmax.int, f32(2, 3, 4), dim) for dim in (0, 1, 2, -1)),
    Case(aten.softmax.int, f32(5), 0),
    Case(aten.softmax.int, f32(), 0),
    Case(aten.softmax.int, bf16(4, 5), -1),
    Case(aten.softmax.int, f16(4, 5), -1, torch.float32).float32_only("float16 is the point"),
    Case(aten.softmax.int, i64(4, 5), 1, torch.float32),
    Case(aten.softmax.int, dynamic(f32(4, 5), {0: (1, 4, 8), 1: (2, 5, 9)}), 1),
    Case(aten.softmax.int, dynamic(f32(4), {0: (2, 4, 8)}), -1),
    Case(aten.softmax.int, f32(2, 3, 4, low=-90, high=90), 1),
    Case(aten._softmax.default, f32(2, 3, 4), 1, False),
    Case(aten._safe_softmax.default, f32(2, 3, 4), 1),
    Case(aten._safe_softmax.default, ROWS, -1),
    Case(aten._safe_softmax.default, dynamic(f32(4), {0: (2, 4, 8)}), 0),
    Case(aten.log_softmax.int, bf16(4, 50), -1),
    Case(aten.logsumexp.default, bf16(4, 50), [-1]),
    *(Case(aten.log_softmax.int, f32(2, 3, 4), dim) for dim in (0, 1, -1)),
    Case(aten.log_softmax.int, f32(5), 0),
    Case(aten.log_softmax.int, f32(5, 0, 0), -1),
    Case(aten.log_softmax.int, f32(), -1),
    Case(aten.log_softmax.int, f32(2, 9, low=-200, high=200), 1),
    Case(aten.log_softmax.int, dynamic(f32(4, 5), BATCH), 0),
    Case(aten._log_softmax.default, f32(2, 3, 4), 1, False),
    Case(aten.logsumexp.default, f32(2, 3, 4), [1]),
    Case(aten.logsumexp.default, f32(2, 3, 4), [0, -1], True),
    Case(aten.logsumexp.default, f32(2, 3), [0, 1]),
    Case(aten.logsumexp.default, f32(), [0]),
    Case(aten.logsumexp.default, ROWS, [1]),
    Case(aten.logsumexp.default, dynamic(f32(4, 5), {0: (1, 4, 8), 1: (2, 5, 9)}), [1]),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_a_vector_gets_the_second_dim_that_the_layer_wants() -> None:
    assert kinds(Case(aten.softmax.int, f32(5), 0)) == ["shuffle", "softmax", "shuffle"]
