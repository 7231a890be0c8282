# SPDX-License-Identifier: Apache-2.0
"""Extreme elements and their places against eager PyTorch."""

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
    kinds,
    refusal,
)

aten = torch.ops.aten
NUMBERS = given([[3, 1, 2], [7, 9, 8]], torch.int64)
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
            Case(op, BOTH, 2),
            Case(op, f32(2, 3, 2, 2, 2, 2), 1, True),
        )
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_the_indices_are_cast_where_they_cannot_be_asked_for() -> None:
    assert kinds(Case(aten.max.dim, f32(3, 4), 1, True)) == ["topk"]
    assert kinds(Case(aten.max.dim, f32(3, 4), 1, True), "orin@jetpack-6.2") == ["topk", "cast"]


def test_what_has_no_top_k_stays_in_pytorch() -> None:
    reason = "this TensorRT has no top-k of int64"
    assert refusal(aten.argmax.default, NUMBERS, target="orin@jetpack-6.0") == reason
    assert refusal(aten.max.dim, boolean(3), 0) == "this TensorRT has no top-k of bool"
