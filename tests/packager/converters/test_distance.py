# SPDX-License-Identifier: Apache-2.0
"""Distances between rows against eager PyTorch."""

from __future__ import annotations

import math

import pytest
import torch

from tests.packager.converters.harness import Case, Checker, dynamic, f32, refusal

aten = torch.ops.aten
FLOAT16 = "eager PyTorch has no float16 distances on CPUs"
ROWS = dynamic(f32(4, 5), {0: (1, 4, 8)})

CASES = [
    Case(aten._cdist_forward.default, f32(4, 5), f32(3, 5), 2.0, None),
    Case(aten._cdist_forward.default, f32(2, 4, 5), f32(2, 3, 5), 1.0, None),
    Case(aten._cdist_forward.default, f32(4, 5), f32(3, 5), math.inf, None),
    Case(aten._cdist_forward.default, f32(4, 5), f32(3, 5), 2.0, 2),
    Case(aten._cdist_forward.default, f32(30, 5), f32(30, 5), 2.0, None),
    Case(aten._cdist_forward.default, f32(4, 5), f32(3, 5), 2.0, 1),
    Case(aten._cdist_forward.default, ROWS, f32(3, 5), 3.0, None),
    Case(aten._cdist_forward.default, ROWS, f32(3, 5), 2.0, None),
    *(Case(aten._pdist_forward.default, f32(4, 5), p) for p in (0.0, 1.0, 2.0, 3.0, math.inf)),
    Case(aten._pdist_forward.default, f32(2, 5)),
    Case(aten._pdist_forward.default, dynamic(f32(3, 5), {1: (1, 5, 9)})),
    *(Case(aten.dist.default, f32(4, 5), f32(5), p) for p in (0, 1, 2, 2.5, math.inf)),
    Case(aten.dist.default, ROWS, f32(1, 5)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case.float32_only(FLOAT16))


def test_pairs_of_a_varying_number_of_rows_stay_in_pytorch() -> None:
    reason = refusal(aten._pdist_forward.default, ROWS)
    assert reason == "the number of rows is dynamic, and with it which pairs there are"
