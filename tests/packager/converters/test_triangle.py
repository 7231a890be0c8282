# SPDX-License-Identifier: Apache-2.0
"""Triangles and cumulative sums against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    bf16,
    boolean,
    dynamic,
    f32,
    i32,
    i64,
    kinds,
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
    Case(aten.cumsum.default, f32(3, 4), 1),
    Case(aten.cumsum.default, f32(3, 4, 2), 0),
    Case(aten.cumsum.default, f32(3, 4, 2), -2),
    Case(aten.cumsum.default, f32(6), 0),
    Case(aten.cumsum.default, f32(), 0),
    Case(aten.cumsum.default, i32(3, 4), 1),
    Case(aten.cumsum.default, boolean(3, 4), 1),
    Case(aten.cumsum.default, bf16(3, 40), 1),
    Case(aten.cumsum.default, i64(3, 4), 1, dtype=torch.float32),
    Case(aten.cumsum.default, dynamic(i64(4, 5), {0: (1, 4, 8), 1: (1, 5, 9)}), 1),
    Case(aten.cumsum.default, dynamic(f32(4, 5), {0: (1, 4, 8), 1: (1, 5, 9)}), 0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_a_cumulative_sum_is_one_layer_where_tensorrt_has_it() -> None:
    case = Case(aten.cumsum.default, f32(3, 4), 1)
    assert kinds(case) == ["cumulative"]
    assert kinds(case, "orin@jetpack-6.2") == ["matrix_multiply"]
