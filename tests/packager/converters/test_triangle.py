# SPDX-License-Identifier: Apache-2.0
"""Triangles against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    boolean,
    dynamic,
    f32,
    i64,
    size,
    weight,
)

aten = torch.ops.aten
SQUARE = dynamic(f32(4, 4), {0: (1, 4, 8), 1: (1, 4, 8)})

CASES = [
    *(
        case
        for op in (aten.tril.default, aten.triu.default)
        for case in (
            Case(op, f32(4, 4)),
            Case(op, f32(2, 3, 5), 1),
            Case(op, f32(5, 3), -2),
            Case(op, i64(3, 3)),
            Case(op, boolean(3, 3), 1),
            Case(op, weight(f32(3, 3))),
            Case(op, SQUARE),
            Case(op, dynamic(f32(4, 6), {1: (4, 6, 9)}), size(0, 1, lambda s: s - 4)),
        )
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)
