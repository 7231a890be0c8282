# SPDX-License-Identifier: Apache-2.0
"""Index notation against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    Input,
    dynamic,
    f32,
    i32,
    i64,
    kinds,
    refusal,
)

aten = torch.ops.aten
EINSUM = aten.einsum.default


def x(*shape: int) -> Input:
    return f32(*shape, low=-1, high=1)


CASES = [
    Case(EINSUM, "ij,jk->ik", [x(2, 3), x(3, 4)]),
    Case(EINSUM, "ij,jk", [x(2, 3), x(3, 4)]),
    Case(EINSUM, "bhid,bhjd->bhij", [x(2, 4, 5, 6), x(2, 4, 7, 6)]),
    Case(EINSUM, "nc,nc->n", [x(2, 3), x(2, 3)]),
    Case(EINSUM, "ij->ji", [x(2, 3)]),
    Case(EINSUM, "ij->", [x(2, 3)]),
    Case(EINSUM, "BI,OIJ,BJ->BO", [x(2, 3), x(4, 3, 5), x(2, 5)]),
    Case(EINSUM, "ii->i", [x(3, 3)]),
    Case(EINSUM, "bii,bij->bj", [x(2, 3, 3), x(2, 3, 4)]),
    Case(EINSUM, "...ij,jk->...ik", [x(2, 3, 4), x(4, 5)]),
    Case(EINSUM, "...i,...i", [x(2, 3, 4), x(3, 4)]),
    Case(EINSUM, "bi,bj->bij", [x(1, 3), x(2, 4)]),
    Case(EINSUM, "i,j->ij", [x(3), x(4)]),
    Case(EINSUM, "abcd,dbe->ebca", [x(2, 3, 1, 4), x(4, 3, 5)]),
    Case(EINSUM, "abc,cd->da", [x(2, 3, 4), x(4, 5)]),
    Case(EINSUM, "ij,jk->ki", [i64(2, 3), i64(3, 4)]),
    Case(EINSUM, "bii,...k->k...i", [i64(2, 3, 3), i64(5, 4)]),
    Case(EINSUM, "ab,bc,cd->da", [i64(2, 3), i64(3, 1), i64(4, 5)]),
    Case(EINSUM, "ij->", [dynamic(i64(2, 3), {0: (1, 2, 4)})]),
    Case(EINSUM, "...ik,...j->ij", [i32(1, 2, 3), i32(3)]),
    Case(
        EINSUM,
        "bqd,bkd->bqk",
        [
            dynamic(x(2, 4, 3), {0: (1, 2, 5), 1: (1, 4, 6)}),
            dynamic(x(2, 7, 3), {0: (1, 2, 5), 1: (1, 7, 9)}),
        ],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_two_tensors_are_one_layer() -> None:
    assert kinds(Case(EINSUM, "...ij,jk->...ik", [x(2, 3, 4), x(4, 5)])) == ["einsum"]


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)], ["matrix_multiply"]),
        ("bhid,bhjd->bijh", [(2, 4, 5, 6), (2, 4, 7, 6)], ["matrix_multiply"]),
        ("abc,cd->da", [(2, 3, 4), (4, 5)], ["reduce", "matrix_multiply"]),
        ("ij,ij->ij", [(2, 3), (2, 3)], ["elementwise"]),
        ("ijk->k", [(2, 3, 4)], ["reduce"]),
    ],
)
def test_before_tensorrt_10_matrices_are_multiplied(
    equation: str, shapes: list[tuple[int, ...]], expected: list[str]
) -> None:
    """TensorRT 8.6 rounds the layer's float32 to float16 in an engine that has both."""
    made = kinds(Case(EINSUM, equation, [x(*shape) for shape in shapes]), "orin@jetpack-6.0")
    assert [kind for kind in made if kind != "shuffle"] == expected


def test_whole_numbers_of_too_many_labels_stay_in_pytorch() -> None:
    reason = refusal(EINSUM, "abcde,fghi->ai", [i64(1, 1, 1, 1, 2), i64(1, 1, 2, 1)])
    assert reason == "a product of whole numbers has 9 labels, beyond 8"
