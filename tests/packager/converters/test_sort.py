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
    i64,
    kinds,
    refusal,
    size,
)

aten = torch.ops.aten
SAME = dynamic(i64(9, 2, low=0, high=3), {0: (2, 9, 12)})
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
    Case(aten.sort.default, ANY, 1),
    Case(aten.sort.stable, dynamic(boolean(2, 5), {1: (2, 5, 7)}), stable=True, dim=1),
    Case(aten.sort.stable, SAME, stable=True, dim=0, descending=True),
    Case(aten.argsort.default, dynamic(f32(2, 3, 4), {1: (2, 3, 5)}), 1, True),
    Case(aten.topk.default, ANY, size(0, 1, lambda s: s // 2)),
    Case(aten.kthvalue.default, f32(3, 6), 2),
    Case(aten.kthvalue.default, ANY, 3, 1, True),
    Case(aten.kthvalue.default, f32(), 1),
]


MANY = Case(aten.topk.default, f32(4000), 3900)


@pytest.mark.slow
def test_many_match_pytorch(check: Checker) -> None:
    check(MANY.float32_only("of equal elements, any may come first"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_only_the_indices_are_cast() -> None:
    assert kinds(Case(aten.topk.default, f32(3, 6), 2)) == ["topk", "cast"]


def test_before_release_10_every_element_has_a_finite_rank() -> None:
    layers = kinds(Case(aten.topk.default, f32(3, 6), 2), TARGETS[-1])
    assert layers == ["elementwise", "topk", "gather", "cast"]


def test_before_release_10_whole_numbers_are_compared() -> None:
    assert "topk" in kinds(Case(aten.sort.default, WHOLE, -1, False), TARGETS[1])
    assert "topk" not in kinds(Case(aten.sort.default, WHOLE, -1, False), TARGETS[-1])


def test_equal_elements_keep_their_order_where_they_are_compared() -> None:
    layers = kinds(Case(aten.sort.stable, ANY, stable=True, dim=1))
    assert "topk" not in layers
    assert layers.count("reduce") == 1


def test_more_than_can_be_compared_stays_in_pytorch() -> None:
    reason = (
        "TensorRT puts at most 3840 elements in order, not 20000, and comparing them with one "
        "another takes 400000000 steps"
    )
    assert refusal(aten.topk.default, f32(20000), 4000) == reason
    assert refusal(aten.sort.default, f32(20000)) == reason
    assert refusal(aten.msort.default, f32(20000, 1)) == reason
    assert refusal(aten.median.default, f32(100, 200)) == reason
    assert refusal(aten.topk.default, f32(20000), 3000) is None
