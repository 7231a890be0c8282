# SPDX-License-Identifier: Apache-2.0
"""Running products against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import Case, Checker, dynamic, f32, i64

aten = torch.ops.aten
CASES = [
    Case(aten.cumprod.default, f32(2, 4, 3, low=-1.5, high=1.5), 1),
    Case(aten.cumprod.default, f32(5, low=-1.5, high=1.5), -1),
    Case(aten.cumprod.default, f32(), 0),
    Case(aten.cumprod.default, i64(2, 4), 0),
    Case(aten.cumprod.default, i64(4), 0, dtype=torch.float32),
    Case(
        aten.cumprod.default,
        dynamic(f32(2, 4, low=-1.5, high=1.5), {0: (1, 2, 5), 1: (1, 4, 6)}),
        1,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)
