# SPDX-License-Identifier: Apache-2.0
"""Places among sorted values against eager PyTorch."""

from __future__ import annotations

import math

import pytest
import torch

from tests.packager.converters.harness import Case, Checker, dynamic, f32, given, i32, i64

aten = torch.ops.aten
BATCH = {0: (1, 4, 8)}
EDGES = given([-1.0, 0.0, 1.0, 1.0, 2.0])
ROWS = given([[-1.0, 0.0, 1.0], [2.0, 2.0, 2.5]])
VALUES = given([[math.nan, -2.0, 1.0, math.inf], [0.0, 2.0, 2.5, 9.0]])
WHOLE = given([-3, 0, 2, 2], torch.int64)

CASES = [
    *(
        case
        for right in (False, True)
        for case in (
            Case(aten.bucketize.Tensor, VALUES, EDGES, right=right),
            Case(aten.bucketize.Tensor, i64(3, 4), WHOLE, right=right, out_int32=True),
            Case(aten.bucketize.Tensor, i32(9), EDGES, right=right),
            Case(aten.bucketize.Tensor, dynamic(f32(4, 3), BATCH), EDGES, right=right),
            Case(aten.bucketize.Scalar, 1.0, EDGES, right=right),
            Case(aten.searchsorted.Tensor, ROWS, VALUES, right=right),
            Case(aten.searchsorted.Tensor, EDGES, VALUES, right=right),
            Case(aten.searchsorted.Scalar, WHOLE, 2, right=right),
        )
    ),
    Case(aten.searchsorted.Tensor, WHOLE, i64(9), side="right"),
    Case(aten.searchsorted.Tensor, WHOLE, i64(), side="left", out_int32=True),
    Case(
        aten.searchsorted.Tensor,
        given([[1.0, -1.0, 0.0], [2.5, 2.0, 2.0]]),
        VALUES,
        sorter=given([[1, 2, 0], [1, 2, 0]], torch.int64),
    ),
    Case(aten.searchsorted.Tensor, EDGES, dynamic(f32(4, 3), {0: (1, 4, 8), 1: (2, 3, 9)})),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)
