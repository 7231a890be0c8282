# SPDX-License-Identifier: Apache-2.0
"""Advanced indexing against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    Input,
    boolean,
    dynamic,
    f32,
    given,
    i32,
    i64,
    kinds,
    weight,
)

aten = torch.ops.aten
INDEX = aten.index.Tensor
CUBE = f32(5, 6, 7)
ANY = dynamic(f32(5, 6, 7), {0: (5, 5, 8), 1: (5, 6, 9)})
WORDS = f32(10, 4)


def at(*shape: int) -> Input:
    """Indices, some from the end."""
    return i64(*shape, low=-4, high=5)


TABLE = given([[0, -1], [3, 2]], torch.int64)

CASES = [
    Case(INDEX, CUBE, [at(3)]),
    Case(INDEX, CUBE, [None, at(3, 2)]),
    Case(INDEX, CUBE, [None, None, at(3)]),
    Case(INDEX, CUBE, [weight(TABLE)]),
    Case(INDEX, CUBE, [weight(TABLE), weight(TABLE)]),
    Case(INDEX, CUBE, [at(3), at(3)]),
    Case(INDEX, CUBE, [at(3, 1), at(4)]),
    Case(INDEX, CUBE, [None, at(3), at(3)]),
    Case(INDEX, CUBE, [at(3), None, at(3)]),
    Case(INDEX, CUBE, [at(2, 1), None, at(3)]),
    Case(INDEX, CUBE, [at(3), at(3), at(3)]),
    Case(INDEX, CUBE, [at(), at()]),
    Case(INDEX, i64(5, 6), [at(3)]),
    Case(INDEX, boolean(5, 6), [at(3)]),
    Case(INDEX, CUBE, [i32(3, low=-4, high=5)]),
    Case(INDEX, ANY, [at(3)]),
    Case(INDEX, ANY, [at(3), at(3)]),
    Case(INDEX, ANY, [at(3), None, at(3)]),
    Case(INDEX, ANY, [dynamic(at(3), {0: (1, 3, 9)}), None]),
    Case(INDEX, weight(f32(9, 3)), [weight(TABLE)]),
    Case(aten._unsafe_index.Tensor, CUBE, [None, at(3, 1), at(4)]),
    Case(aten.index_select.default, CUBE, 1, i64(4, low=0, high=6)),
    Case(aten.index_select.default, CUBE, -1, i64(low=0, high=6)),
    Case(aten.index_select.default, ANY, 0, i64(3, low=0, high=5)),
    Case(aten.embedding.default, WORDS, i64(2, 3, low=0, high=10)),
    Case(aten.embedding.default, weight(WORDS), i32(3, low=0, high=10), 2),
    Case(
        aten.embedding.default,
        weight(WORDS),
        dynamic(i64(2, 3, low=0, high=10), {0: (1, 2, 4), 1: (1, 3, 8)}),
    ),
    Case(aten.gather.default, f32(3, 4), 1, i64(3, 2, low=0, high=4)),
    Case(aten.gather.default, f32(3, 4), 0, i64(5, 4, low=0, high=3)),
    Case(aten.gather.default, f32(3, 4), 1, i64(2, 6, low=0, high=4)),
    Case(aten.gather.default, i64(3, 4), -1, i64(3, 2, low=0, high=4)),
    Case(aten.gather.default, boolean(3, 4), -1, i64(3, 2, low=0, high=4)),
    Case(
        aten.gather.default,
        dynamic(f32(3, 4), {0: (1, 3, 6)}),
        1,
        dynamic(i64(3, 2, low=0, high=4), {0: (1, 3, 6)}),
    ),
    Case(aten.take.default, f32(3, 4), i64(2, 3, low=-12, high=12)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_known_indices_are_one_gather() -> None:
    assert kinds(Case(INDEX, CUBE, [weight(TABLE)])) == ["gather"]
    assert kinds(Case(INDEX, CUBE, [weight(TABLE), weight(TABLE)])) == ["shuffle", "gather"]
