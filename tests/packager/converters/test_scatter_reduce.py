# SPDX-License-Identifier: Apache-2.0
"""Reduced elements against eager PyTorch."""

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
)

aten = torch.ops.aten
ANY = dynamic(f32(5, 4), {0: (5, 5, 8)})
PLACES = i64(6, 4, low=0, high=5)
REDUCE = aten.scatter_reduce.two

CASES = [
    Case(
        aten.scatter_add.default,
        f32(3, 5),
        1,
        given([[3, 0], [1, 4], [2, 2]], torch.int64),
        f32(3, 2),
    ),
    Case(aten.scatter_add.default, f32(5, 4), 0, i64(6, 4, low=0, high=5), f32(7, 4)),
    Case(aten.scatter_add.default, f32(5, 4), 0, i64(6, 2, low=0, high=5), f32(6, 4)),
    Case(aten.scatter_add.default, i64(5, 4), 0, i64(6, 4, low=0, high=5), i64(6, 4)),
    Case(aten.scatter_add.default, ANY, 0, i64(6, 4, low=0, high=5), f32(6, 4)),
    Case(REDUCE, f32(5, 4), 0, i64(6, 4, low=0, high=5), f32(6, 4), "amax"),
    Case(REDUCE, f32(5, 4), 0, i64(6, 2, low=0, high=5), f32(6, 4), "amin"),
    Case(
        REDUCE,
        f32(5, 4),
        0,
        i64(3, 4, low=0, high=5),
        f32(3, 4, low=-1, high=1),
        "prod",
    ),
    Case(REDUCE, i64(5, 4), 0, i64(6, 4, low=0, high=5), i64(6, 4), "amax"),
    Case(aten.scatter.reduce, f32(5, 4), 0, i64(6, 4, low=0, high=5), f32(6, 4), reduce="add"),
    Case(aten.index_add.default, f32(5, 4), 0, i64(6, low=0, high=5), f32(6, 4)),
    Case(aten.index_add.default, f32(4, 5), 1, i64(6, low=0, high=5), f32(4, 6), alpha=2),
    Case(aten.index_add.default, ANY, 0, i64(6, low=0, high=5), f32(6, 4)),
    Case(aten.index_add.default, i64(5, 4), 0, i64(6, low=0, high=5), i64(6, 4), alpha=3),
    Case(aten.index_add.default, f32(), 0, given([0], torch.int64), f32()),
    Case(aten.scatter.value_reduce, f32(5, 4), 0, PLACES, 1.5, reduce="multiply"),
    Case(REDUCE, boolean(5, 4), 0, PLACES, boolean(6, 4), "sum"),
    Case(REDUCE, f32(), 0, given(0, torch.int64), f32(), "mean"),
    Case(REDUCE, f32(5, 4), 0, PLACES, f32(6, 4), "mean"),
    Case(REDUCE, i64(5, 4), 0, PLACES, i64(6, 4), "mean", include_self=False),
    Case(REDUCE, ANY, 0, PLACES, f32(6, 4), "mean", include_self=False),
    Case(REDUCE, f32(5, 4), 0, PLACES, f32(6, 4), "sum", include_self=False),
    Case(REDUCE, f32(5, 4), 0, i64(2, 3, low=0, high=5), f32(6, 4), "amax", include_self=False),
    Case(aten.index_reduce.default, f32(4, 5), 1, i64(6, low=0, high=5), f32(4, 6), "mean"),
    Case(aten.index_reduce.default, ANY, 0, i64(3, low=0, high=5), f32(3, 4), "amin"),
    Case(
        aten.index_reduce.default,
        f32(4, 5),
        1,
        given([0, 3, 3], torch.int64),
        f32(4, 3, low=-1, high=1),
        "prod",
        include_self=False,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_floats_are_added_by_a_product() -> None:
    layers = kinds(Case(aten.index_add.default, f32(5, 4), 0, i64(6, low=0, high=5), f32(6, 4)))
    assert layers.count("matrix_multiply") == 1
