# SPDX-License-Identifier: Apache-2.0
"""Extreme elements and their places against eager PyTorch."""

from __future__ import annotations

import math

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    boolean,
    dynamic,
    f32,
    given,
    kinds,
)

aten = torch.ops.aten
NUMBERS = given([[3, 1, 2], [7, 9, 8]], torch.int64)
NAN = given([[3.0, math.nan, 2.0], [7.0, -9.0, math.inf]])
BOTH = dynamic(f32(4, 5, 3), {0: (1, 4, 8), 2: (2, 3, 6)})

CASES = [
    *(
        case
        for op in (aten.argmax.default, aten.argmin.default)
        for case in (
            Case(op, f32(3, 4), 1),
            Case(op, f32(3, 4), 0, True),
            Case(op, f32(3, 4)),
            Case(op, f32(3, 4), None, True),
            Case(op, f32(5), 0),
            Case(op, f32(), 0),
            Case(op, NUMBERS, -1),
            Case(op, BOTH, 1),
            Case(op, BOTH, 2, True),
            Case(op, BOTH),
            Case(op, f32(3, 2, 2, 2, 2, 2), 0),
            Case(op, NAN, 1),
        )
    ),
    *(
        case
        for op in (aten.max.dim, aten.min.dim)
        for case in (
            Case(op, f32(3, 4), 1),
            Case(op, f32(3, 4), 0, True),
            Case(op, f32(5), -1),
            Case(op, f32(), 0),
            Case(op, NUMBERS, 0),
            Case(op, given([[1, 0, 1], [0, 1, 1]], torch.bool), 1).answering(0),
            Case(op, given([[1, 250, 7], [0, 9, 3]], torch.uint8), 1),
            Case(op, BOTH, 2),
            Case(op, NAN, 0),
            Case(op, f32(2, 3, 2, 2, 2, 2), 1, True),
        )
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_truth_values_have_a_place_where_they_are(check: Checker) -> None:
    lone = given([[False, True, False], [False, False, True]], torch.bool)
    check(Case(aten.max.dim, lone, 1, True))
    check(Case(aten.min.dim, dynamic(boolean(3, 4), {0: (1, 3, 4)}), 1).answering(0))


def test_the_indices_are_cast_where_they_cannot_be_asked_for() -> None:
    assert kinds(Case(aten.max.dim, f32(3, 4), 1, True)) == ["topk"]
    assert kinds(Case(aten.max.dim, f32(3, 4), 1, True), "orin@jetpack-6.2") == ["topk", "cast"]
