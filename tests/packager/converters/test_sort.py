# SPDX-License-Identifier: Apache-2.0
"""Sorted elements against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    TARGETS,
    Case,
    Checker,
    boolean,
    dynamic,
    f32,
    given,
    kinds,
    refusal,
)

aten = torch.ops.aten
WHOLE = given([[5, -2, 9, 0], [3, 8, -7, 1]], torch.int64)
ANY = dynamic(f32(3, 6), {0: (1, 3, 5), 1: (4, 6, 9)})
MASKED = given([[5, -torch.inf, torch.inf, 0], [1, -3, -torch.inf, 2]], torch.float16)

CASES = [
    Case(aten.topk.default, f32(3, 6), 2),
    Case(aten.topk.default, f32(3, 6), 2, 0, False),
    Case(aten.topk.default, f32(6), 3),
    Case(aten.topk.default, WHOLE, 2),
    Case(aten.topk.default, ANY, 4),
    Case(aten.topk.default, f32(6, 1, 2, 1, 2), 2, 0),
    Case(aten.sort.default, f32(3, 6)),
    Case(aten.sort.default, f32(3, 6), 0, True),
    Case(aten.sort.default, f32()),
    Case(aten.sort.stable, f32(3, 6), stable=True, dim=1),
    Case(aten.sort.default, dynamic(f32(3, 6), {0: (1, 3, 5)})),
    Case(aten.argsort.default, f32(3, 6)),
    Case(aten.argsort.default, WHOLE, 1, True),
    Case(aten.argsort.stable, f32(3, 6), stable=True, dim=0),
    Case(aten.msort.default, f32(3, 6)),
    Case(aten.topk.default, MASKED, 4),
    Case(aten.sort.default, MASKED, 1, False),
    Case(aten.sort.stable, boolean(2, 5), stable=True, dim=1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_only_the_indices_are_cast() -> None:
    assert kinds(Case(aten.topk.default, f32(3, 6), 2)) == ["topk", "cast"]


def test_before_release_10_every_element_has_a_finite_rank() -> None:
    layers = kinds(Case(aten.topk.default, f32(3, 6), 2), TARGETS[-1])
    assert layers == ["elementwise", "topk", "gather", "cast"]


def test_before_release_10_whole_numbers_stay_in_pytorch() -> None:
    assert refusal(aten.sort.default, WHOLE, -1, False, target=TARGETS[1]) is None
    reason = refusal(aten.sort.default, WHOLE, -1, False, target=TARGETS[-1])
    assert reason == "this TensorRT has no top-k of int64"


def test_more_than_tensorrt_sorts_stays_in_pytorch() -> None:
    reason = "TensorRT sorts at most 3840 elements, not 4000"
    assert refusal(aten.topk.default, f32(5000), 4000) == reason
    assert refusal(aten.sort.default, f32(4000)) == reason
    dynamic_size = refusal(aten.sort.default, ANY)
    assert dynamic_size == "TensorRT needs the number of elements as a constant"
