# SPDX-License-Identifier: Apache-2.0
"""Elements picked and placed where a mask is true, against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    boolean,
    dynamic,
    f32,
    given,
    i64,
    kinds,
    refusal,
    refused,
)
from trtpack.converters.refusals import NO_LAYER_SIZED_BY_DATA

aten = torch.ops.aten
SCATTER = aten.masked_scatter.default
OLD = "orin@jetpack-6.2"
BOTH = {0: (1, 3, 5), 1: (1, 4, 6)}
MASK = given([[False, False, True, False], [True, True, False, True], [False] * 4], torch.bool)
NOWHERE = given([[False] * 4] * 3, torch.bool)
EVERYWHERE = given([[True] * 4] * 3, torch.bool)

CASES = [
    Case(SCATTER, f32(3, 4), MASK, f32(4)),
    Case(SCATTER, f32(3, 4), boolean(3, 4), f32(5, 6)),
    Case(SCATTER, f32(3, 4), NOWHERE, f32(1)),
    Case(SCATTER, f32(3, 4), NOWHERE, f32(0)),
    Case(SCATTER, f32(3, 4), EVERYWHERE, f32(2, 6)),
    Case(SCATTER, i64(3, 4), MASK, i64(3, 4)),
    Case(SCATTER, i64(3, 4), boolean(3, 1), i64(12)),
    Case(SCATTER, f32(4), boolean(3, 4), f32(12)),
    Case(SCATTER, f32(), boolean(), f32(1)),
    Case(SCATTER, boolean(3, 4), MASK, boolean(4)),
    Case(SCATTER, dynamic(f32(3, 4), BOTH), dynamic(boolean(3, 4), BOTH), dynamic(f32(3, 4), BOTH)),
    Case(SCATTER, dynamic(i64(3, 4), BOTH), dynamic(boolean(3, 4), BOTH), dynamic(i64(3, 4), BOTH)),
    Case(SCATTER, dynamic(f32(3, 4), {0: (1, 3, 5)}), boolean(4), f32(40)),
]

SELECT, INDEX, PUT = aten.masked_select.default, aten.index.Tensor, aten.index_put.default
ROWS = given([True, False, True], torch.bool)
CUBE = dynamic(f32(3, 4, 2), {0: (1, 3, 6)})
OPEN_ROWS = dynamic(boolean(3), {0: (1, 3, 6)})
SIZED_BY_DATA = [
    Case(SELECT, f32(3, 4), MASK),
    Case(SELECT, f32(3, 4), NOWHERE),
    Case(SELECT, i64(3, 1), boolean(2, 1, 4)),
    Case(SELECT, dynamic(f32(3, 4), BOTH), dynamic(boolean(3, 4), BOTH)),
    Case(SELECT, dynamic(f32(3, 4), {0: (1, 3, 5)}), boolean(4)),
    Case(INDEX, f32(3, 4), [MASK]),
    Case(INDEX, f32(3, 4), [NOWHERE]),
    Case(INDEX, f32(3, 4), [ROWS]),
    Case(INDEX, f32(5, 3, 4, 2), [None, MASK]),
    Case(INDEX, f32(4, 3, 5), [given([0, -1], torch.int64), ROWS]),
    Case(INDEX, f32(3, 5, 4), [ROWS, None, given([0, -1], torch.int64)]),
    Case(INDEX, boolean(3, 4), [MASK]),
    Case(INDEX, CUBE, [OPEN_ROWS]),
    Case(INDEX, dynamic(f32(5, 3, 4), {1: (1, 3, 5)}), [None, dynamic(boolean(3), {0: (1, 3, 5)})]),
    Case(PUT, f32(3, 4), [MASK], f32(4)),
    Case(PUT, f32(3, 4), [given([False] * 3, torch.bool)], f32(4)),
    Case(PUT, f32(3, 4), [ROWS], f32(2, 4)),
    Case(PUT, f32(3, 4), [ROWS], f32(4)),
    Case(PUT, f32(5, 3), [None, ROWS], f32(5, 2)),
    Case(PUT, f32(3, 4), [MASK], f32(4), True),
    Case(PUT, f32(3, 4), [MASK], f32(), True),
    Case(PUT, CUBE, [OPEN_ROWS], f32(2)),
]


@pytest.mark.parametrize("case", [*CASES, *(case.not_on_rtx() for case in SIZED_BY_DATA)], ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


@pytest.mark.parametrize("case", SIZED_BY_DATA[::5], ids=str)
def test_tensorrt_rtx_has_no_layer_that_counts(case: Case) -> None:
    assert refused(case) == NO_LAYER_SIZED_BY_DATA


def test_a_mask_of_one_element_is_refused() -> None:
    found = refusal(INDEX, f32(3, 4), [boolean()], target=OLD)
    assert found == "a mask of one element adds a dim of 0 or 1 elements"


def test_all_dims_of_a_mask_are_one_gather() -> None:
    assert kinds(Case(INDEX, f32(3, 4), [boolean(3, 4)]), OLD) == [
        "shuffle",
        "non_zero",
        "shuffle",
        "shuffle",
        "gather",
    ]


def test_a_mask_is_counted_by_one_layer_where_tensorrt_has_it() -> None:
    case = Case(SCATTER, f32(3, 4), boolean(3, 4), f32(12))
    assert kinds(case).count("cumulative") == 1
    assert "matrix_multiply" in kinds(case, OLD)


def test_counting_by_a_table_is_kept_to_few_elements() -> None:
    reason = "a running count of so many elements needs ICumulativeLayer of TensorRT 10.8"
    assert refusal(SCATTER, f32(32, 64), boolean(32, 64), f32(2048), target=OLD) is None
    assert refusal(SCATTER, f32(32, 65), boolean(32, 65), f32(2080), target=OLD) == reason
    assert refusal(SCATTER, f32(64, 1), boolean(64), f32(4096), target=OLD) == reason
    varying = dynamic(boolean(3, 4), BOTH)
    assert refusal(SCATTER, dynamic(f32(3, 4), BOTH), varying, f32(30), target=OLD) == reason
    assert refusal(SCATTER, f32(32, 65), boolean(32, 65), f32(2080)) is None
