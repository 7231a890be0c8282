# SPDX-License-Identifier: Apache-2.0
"""The gamma function's logarithm and derivatives against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import Case, Checker, dynamic, f32, given, i64, refusal

aten = torch.ops.aten
INF, NAN = torch.inf, torch.nan
EDGES = given([0.0, -0.0, 1.0, 2.0, -1.0, -4.0, 1e-6, -1e-6, 0.5, 30.0, 1e4, INF, NAN])
ANY = dynamic(f32(3, 4, low=0.01, high=20), {0: (1, 3, 5)})
LEFT = given([-0.3, -0.75, -1.4, -2.6, -3.3, -5.5])

CASES = [
    Case(aten.lgamma.default, EDGES),
    Case(aten.lgamma.default, LEFT),
    Case(aten.lgamma.default, given([-INF])),
    Case(aten.lgamma.default, ANY),
    Case(aten.lgamma.default, i64(5, low=1, high=20)),
    Case(aten.digamma.default, EDGES).float32_only("float16 has no such small numbers"),
    Case(aten.digamma.default, LEFT),
    Case(aten.digamma.default, ANY),
    Case(aten.polygamma.default, 0, ANY),
    Case(aten.polygamma.default, 1, ANY),
    Case(aten.polygamma.default, 1, given([0.5, 1.0, 30.0, 1e4, INF, NAN])),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_higher_derivatives_stay_in_pytorch() -> None:
    reason = refusal(aten.polygamma.default, 2, f32(3))
    assert reason == "derivative 2 of digamma takes as many terms as a negative number is large"
