# SPDX-License-Identifier: Apache-2.0
"""Reduced rows of tables against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import Case, Checker, dynamic, f32, given, i32, i64, weight

aten = torch.ops.aten
BAG = aten._embedding_bag_forward_only.default
WORDS = weight(f32(10, 4))
SIX = i64(6, low=0, high=10)
PADDED = given([1, 3, 3, 7, 0, 3], torch.int64)
STARTS = given([0, 2, 2, 5], torch.int64)  # the second bag has nothing in it
ENDED = given([0, 2, 2, 6], torch.int64)
SUM, MEAN, MAX = range(3)

CASES = [
    *(Case(BAG, WORDS, SIX, STARTS, False, mode).answering(0) for mode in (SUM, MEAN, MAX)),
    *(
        Case(BAG, WORDS, PADDED, STARTS, False, mode, padding_idx=3).answering(0)
        for mode in range(3)
    ),
    *(
        Case(BAG, WORDS, SIX, ENDED, False, mode, include_last_offset=True).answering(0)
        for mode in (SUM, MEAN, MAX)
    ),
    Case(BAG, WORDS, SIX, STARTS, False, SUM, False, f32(6)).answering(0),
    Case(BAG, f32(10, 4), i32(6, low=0, high=10), given([0, 1], torch.int32)).answering(0),
    Case(BAG, WORDS, dynamic(SIX, {0: (5, 6, 9)}), STARTS).answering(0),
    *(
        Case(
            BAG, WORDS, SIX, dynamic(i64(3, low=0, high=1), {0: (1, 3, 5)}), False, mode
        ).answering(0)
        for mode in (SUM, MEAN, MAX)
    ),
    Case(aten._embedding_bag.default, WORDS, SIX, STARTS).answering(0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)
