# SPDX-License-Identifier: Apache-2.0
"""Places in ordered tensors against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    dynamic,
    f32,
    given,
    i64,
    refusal,
    weight,
)

aten = torch.ops.aten
SEARCH, BUCKET = aten.searchsorted.Tensor, aten.bucketize.Tensor
REPEAT = aten.repeat_interleave.Tensor
BOUNDS = given([-2.0, -1.0, -1.0, 0.5, 2.0])
WHOLE = given([-3, 0, 0, 2, 4], torch.int64)
ROWS = given([[-2.0, 0.0, 1.0], [-1.0, -1.0, 2.0]])
ANY = dynamic(f32(3, 4), {0: (1, 3, 5), 1: (2, 4, 6)})

CASES = [
    Case(SEARCH, BOUNDS, f32(3, 4)),
    Case(SEARCH, BOUNDS, given([-1.0, 0.5, 3.0, -4.0]), right=True),
    Case(SEARCH, BOUNDS, ANY, side="right"),
    Case(SEARCH, ROWS, f32(2, 5), out_int32=True),
    Case(SEARCH, ROWS, dynamic(f32(2, 5), {1: (2, 5, 7)})),
    Case(aten.searchsorted.Scalar, BOUNDS, 0.75),
    Case(BUCKET, f32(3, 4), BOUNDS),
    Case(BUCKET, i64(3, 4), WHOLE, right=True),
    Case(BUCKET, ANY, BOUNDS),
    Case(aten.bucketize.Scalar, 0.75, BOUNDS),
    Case(REPEAT, given([2, 0, 3, 4], torch.int64), output_size=9),
    Case(REPEAT, given([1, 2], torch.int32), output_size=3),
    Case(REPEAT, weight(given([2, 3, 4], torch.int64)), output_size=9),
    Case(SEARCH, given([3.0, -1.0, 7.0]), f32(2, 3), sorter=given([1, 0, 2], torch.int64)),
    Case(
        SEARCH,
        given([[3, 1], [-2, 9]]),
        dynamic(f32(2, 4), {1: (1, 4, 6)}),
        right=True,
        sorter=given([[1, 0], [0, 1]], torch.int64),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_a_length_that_data_says_stays_in_pytorch() -> None:
    reason = refusal(REPEAT, given([2, 0, 3, 4], torch.int64))
    assert reason == "the size of its result depends on data, so it runs in PyTorch between engines"
