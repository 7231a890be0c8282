# SPDX-License-Identifier: Apache-2.0
"""Greatest common divisors and least common multiples against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import Case, Checker, dynamic, given, i32, i64

aten = torch.ops.aten
FIRST = given([0, 0, 12, -12, 7, 1836311903, -2147483647], torch.int32)
SECOND = given([0, 5, 18, 18, -21, 1134903170, 3], torch.int32)

CASES = [
    Case(aten.gcd.default, FIRST, SECOND),
    Case(aten.gcd.default, i64(3, 4, low=-90, high=90), i64(4, low=-90, high=90)),
    Case(aten.gcd.default, dynamic(i64(3, 1, low=0, high=99), {0: (1, 3, 5)}), i32(4)),
    Case(
        aten.gcd.default,
        given([4807526976, 2**60], torch.int64),
        given([2971215073, 2**31], torch.int64),
    ),
    Case(aten.gcd.default, given([0, 250, 233], torch.uint8), given([3, 100, 144], torch.uint8)),
    Case(aten.lcm.default, i64(3, 4, low=-90, high=90), i64(4, low=-90, high=90)),
    Case(aten.lcm.default, given([0, 4, -6, 0], torch.int32), given([0, 6, 4, 9], torch.int32)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)
