# SPDX-License-Identifier: Apache-2.0
"""Rotary position embeddings against their parts in PyTorch."""

from __future__ import annotations

import pytest

from tests.packager.converters.harness import (
    Case,
    Checker,
    bf16,
    dynamic,
    f32,
    i64,
    kinds,
    refusal,
    weight,
)
from trtpack.rotary_embedding import ROTARY

SIZES = {0: (1, 2, 4), 2: (1, 5, 9)}
ANGLES = dynamic(f32(2, 5, 4), {0: (1, 2, 4), 1: (1, 5, 9)})
CASES = [
    Case(ROTARY, f32(2, 3, 5, 8), weight(f32(5, 4)), weight(f32(5, 4)), False),
    Case(ROTARY, f32(2, 3, 5, 8), f32(2, 1, 5, 4), f32(1, 1, 4), True),
    Case(ROTARY, f32(2, 5, 3, 8), f32(2, 5, 1, 4), f32(5, 1, 4), False),
    Case(ROTARY, f32(2, 5, 3, 8), f32(5, 1, 4), f32(5, 1, 4), True),
    Case(ROTARY, f32(2, 5, 3, 8), f32(5, 3, 4), f32(5, 3, 4), True),
    Case(ROTARY, f32(5, 6), f32(5, 3), f32(5, 3), False),
    Case(ROTARY, bf16(2, 3, 5, 8), bf16(5, 4), bf16(5, 4), False),
    Case(ROTARY, dynamic(f32(2, 3, 5, 8), SIZES), f32(1, 4), f32(1, 4), False),
    Case(ROTARY, dynamic(f32(2, 3, 5, 8), SIZES), f32(1, 4), f32(1, 4), True),
    Case(ROTARY, dynamic(f32(2, 5, 8), {0: (1, 2, 4), 1: (1, 5, 9)}), ANGLES, ANGLES, False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_the_parts(case: Case, check: Checker) -> None:
    check(case)


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_one_layer_where_all_heads_turn_alike(case: Case) -> None:
    assert kinds(case).count("rotary_embedding") == 1
    assert "elementwise" not in kinds(case)
    assert "rotary_embedding" not in kinds(case, "orin@jetpack-6.2")


def test_whole_numbers_stay_in_pytorch() -> None:
    whole = i64(2, 3, 5, 8), i64(5, 4), i64(5, 4)
    reason = refusal(ROTARY, *whole, False)
    assert reason == "TensorRT computes this in floats only, got int64"
