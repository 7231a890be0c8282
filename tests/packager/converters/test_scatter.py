# SPDX-License-Identifier: Apache-2.0
"""Replaced and added elements against eager PyTorch."""

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
    weight,
)

aten = torch.ops.aten
ANY = dynamic(f32(5, 4), {0: (5, 5, 8)})
PLACES = given([[3, 0], [1, 4], [2, 2]], torch.int64)
APART = given([[3, 0], [1, 4], [2, 0]], torch.int64)
ROWS = given([4, 0, -2], torch.int64)
PUT = aten.index_put.default

REPLACED = [
    Case(aten.scatter.src, f32(3, 5), 1, APART, f32(3, 2)),
    Case(aten.scatter.src, f32(5, 4), 0, given([[3, 0], [1, 4]], torch.int64), f32(3, 4)),
    Case(aten.scatter.src, i64(3, 5), -1, given([[3, 0], [1, 4], [2, 0]], torch.int64), i64(3, 2)),
    Case(aten.scatter.value, f32(3, 5), 1, PLACES, 2.5),
    Case(aten.scatter.value, boolean(3, 5), 1, PLACES, True),
    Case(PUT, f32(5, 4), [ROWS], f32(3, 4)),
    Case(PUT, f32(5, 4), [ROWS], f32(4)),
    Case(PUT, f32(5, 4), [weight(ROWS)], f32()),
    Case(PUT, f32(4, 5), [None, ROWS], f32(4, 3)),
    Case(PUT, f32(5, 5), [ROWS, ROWS], f32(3)),
    Case(PUT, f32(5, 4, 5), [ROWS, None, ROWS], f32(3, 4)),
    Case(PUT, f32(2, 5, 5, 3), [None, ROWS, ROWS], f32(2, 3, 3)),
    Case(PUT, ANY, [given([4, 0, 2], torch.int64)], f32(3, 4)),
    Case(PUT, ANY, [ROWS], f32(3, 4)),
    Case(PUT, dynamic(f32(2, 5), {0: (1, 2, 6)}), [None, ROWS], f32(3)),
    Case(PUT, f32(3, 4), [boolean(3, 4)], f32()),
    Case(PUT, f32(3, 4), [boolean(3)], f32(1)),
    Case(aten._unsafe_index_put.default, f32(5, 4), [ROWS], f32(3, 4)),
    Case(aten.index_copy.default, f32(4, 5), 1, given([3, 0], torch.int64), f32(4, 2)),
    Case(aten.select_scatter.default, f32(3, 4), f32(3), 1, 2),
    Case(aten.select_scatter.default, f32(3, 4), f32(3), 1, -1),
    Case(aten.select_scatter.default, ANY, f32(4), 0, 0),
    Case(aten.slice_scatter.default, f32(3, 6), f32(3, 2), 1, 1, 3),
    Case(aten.slice_scatter.default, f32(3, 6), f32(3, 6), 1, 0, 100),
    Case(aten.slice_scatter.default, f32(3, 6), f32(3, 2), 1, -2),
    Case(aten.slice_scatter.default, f32(3, 6), f32(3, 2), 1, 1, 5, 2),
    Case(aten.slice_scatter.default, ANY, f32(2, 4), 0, 1, 3),
    Case(aten.slice_scatter.default, ANY, f32(2, 4), 0, 0, 2),
    Case(aten.diagonal_scatter.default, f32(4, 4), f32(4)),
    Case(aten.diagonal_scatter.default, f32(3, 5), f32(3), 1),
    Case(aten.diagonal_scatter.default, f32(5, 3), f32(3), -1),
    Case(aten.diagonal_scatter.default, f32(4, 2, 4), f32(2, 3), 1, 2, 0),
    Case(
        aten.diagonal_scatter.default,
        dynamic(f32(2, 4, 4), {0: (1, 2, 5)}),
        dynamic(f32(2, 4), {0: (1, 2, 5)}),
        0,
        1,
        2,
    ),
]
ADDED = [
    Case(PUT, f32(5, 4), [i64(6, low=-5, high=5)], f32(6, 4), True),
    Case(PUT, f32(4, 5), [None, i64(6, low=0, high=5)], f32(4, 6), True),
    Case(PUT, f32(5, 5), [i64(6, low=0, high=5), i64(6, low=0, high=5)], f32(6), True),
    Case(PUT, i64(5, 4), [i64(6, low=-5, high=5)], i64(6, 4), True),
    Case(aten.put.default, f32(3, 4), given([[3, 0], [-2, 1]], torch.int64), f32(2, 2)),
    Case(aten.put.default, ANY, i64(6, low=-20, high=20), f32(6), True),
]


@pytest.mark.parametrize("case", [*REPLACED, *ADDED], ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_a_scatter_is_one_layer() -> None:
    assert kinds(Case(aten.scatter.src, f32(3, 5), 1, PLACES, f32(3, 2))) == ["scatter"]
    assert kinds(Case(PUT, f32(5, 4), [weight(ROWS)], f32(3, 4))) == ["scatter"]
