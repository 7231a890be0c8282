# SPDX-License-Identifier: Apache-2.0
"""Elements placed where a mask is true, against eager PyTorch."""

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
)

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


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


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
