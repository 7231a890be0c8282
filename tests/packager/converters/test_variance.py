# SPDX-License-Identifier: Apache-2.0
"""Variances and standard deviations against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import Case, Checker, bf16, dynamic, f32

aten = torch.ops.aten
BOTH = dynamic(f32(4, 5, 3), {0: (2, 4, 8), 2: (2, 3, 6)})

CASES = [
    *(
        case
        for op in (aten.var, aten.std, aten.var_mean, aten.std_mean)
        for case in (
            Case(op.correction, f32(2, 3, 4), [1]),
            Case(op.correction, f32(2, 3, 4), [1, 2], correction=0, keepdim=True),
            Case(op.correction, f32(2, 3, 4), correction=2),
            Case(op.correction, f32(2, 3, 4), None, correction=1, keepdim=True),
            Case(op.correction, f32(2, 1), [1]),
            Case(op.correction, f32(2, 1), [1], correction=0),
            Case(op.correction, BOTH, [0, 2]),
            Case(op.correction, BOTH, [2], correction=0, keepdim=True),
            Case(op.correction, BOTH, [1], keepdim=True),
            Case(op.correction, BOTH, [2], correction=0.5),
        )
    ),
    Case(aten.var.correction, f32(), correction=0),
    Case(aten.var.correction, f32(3, 4, low=100, high=101), [1]),
    Case(aten.var.correction, f32(2, 3), [1], correction=3.5),
    Case(aten.var.correction, bf16(3, 40), [1]),
    Case(aten.var.dim, f32(2, 3, 4), [1]),
    Case(aten.var.dim, f32(2, 3, 4), [1], False, True),
    Case(aten.std.dim, f32(2, 3, 4), [1], False),
    Case(aten.var.default, f32(2, 3, 4)),
    Case(aten.std.default, BOTH, False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)
