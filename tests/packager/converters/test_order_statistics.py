# SPDX-License-Identifier: Apache-2.0
"""Medians and modes against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    boolean,
    dynamic,
    f16,
    f32,
    given,
    i32,
    i64,
    refusal,
)

aten = torch.ops.aten
NAN, INF = torch.nan, torch.inf
ANY = dynamic(f32(3, 6), {0: (1, 3, 5), 1: (4, 6, 9)})
HOLES = given([[5, NAN, 1, 0], [1, -3, 7, 2], [NAN, INF, NAN, -INF], [NAN, NAN, NAN, NAN]])
FEW = dynamic(i64(3, 7, low=0, high=3), {0: (1, 3, 4), 1: (1, 7, 9)})

CASES = [
    Case(aten.median.dim, f32(3, 6), 1),
    Case(aten.median.dim, ANY, 0, True),
    Case(aten.median.dim, f32(), 0),
    Case(aten.median.dim, HOLES, 1).answering(0),
    Case(aten.median.dim, given([[3, 1, 2], [NAN, 1, NAN], [0, 5, NAN]]), -1, True),
    Case(aten.median.default, f32(3, 5)),
    Case(aten.median.default, ANY),
    Case(aten.median.default, HOLES),
    Case(aten.median.default, i32(5)),
    Case(aten.nanmedian.dim, given([[5, NAN, 1, 0], [1, -3, 7, 2], [NAN, 4, NAN, -INF]]), 1),
    Case(aten.nanmedian.dim, HOLES, -1, True).answering(0),
    Case(aten.nanmedian.dim, ANY, 0),
    Case(aten.nanmedian.dim, given([[3, 1, 2], [7, 0, 9]], torch.int64), 1),
    Case(aten.nanmedian.default, HOLES),
    Case(aten.nanmedian.default, f16(7)),
    Case(aten.mode.default, FEW).answering(0),
    Case(aten.mode.default, FEW, 0, True).answering(0),
    Case(aten.mode.default, given([[1, 3, 3, 2], [4, 5, 4, 5], [0, 2, 2, 2]])).answering(0),
    Case(aten.mode.default, given([[3, NAN, NAN, 1], [NAN, NAN, 2, 2]])),
    Case(aten.mode.default, given([NAN, NAN])).answering(0),
    Case(aten.mode.default, f32(2, 3, 2), 1),
    Case(aten.mode.default, f32()),
    Case(aten.mode.default, boolean(2, 5)).answering(0),
    Case(aten.mode.default, given([[1, 200, 200], [7, 9, 7]], torch.uint8)).answering(0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_too_many_to_compare_stay_in_pytorch() -> None:
    reason = refusal(aten.mode.default, f32(64, 5000))
    assert reason is not None
    assert "comparing them with one another takes 1600000000 steps" in reason
