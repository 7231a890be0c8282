# SPDX-License-Identifier: Apache-2.0
"""Linear layers and matrix products against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    Input,
    bf16,
    dynamic,
    f32,
    i64,
    kinds,
    weight,
)

aten = torch.ops.aten
BATCH = {0: (1, 2, 5)}


def x(*shape: int) -> Input:
    return f32(*shape, low=-1, high=1)


LINEAR = [
    Case(aten.linear.default, x(2, 4), weight(x(3, 4)), weight(x(3))),
    Case(aten.linear.default, x(2, 5, 4), weight(x(3, 4))),
    Case(aten.linear.default, x(4), weight(x(3, 4)), weight(x(3))),
    Case(aten.linear.default, x(2, 4), weight(x(4))),
    Case(aten.linear.default, x(2, 4), x(3, 4), x(3)),
    Case(
        aten.linear.default,
        dynamic(x(2, 6, 4), {0: (1, 2, 5), 1: (1, 6, 9)}),
        weight(x(3, 4)),
        weight(x(3)),
    ),
    Case(aten.linear.default, bf16(2, 4, low=-1, high=1), weight(bf16(3, 4, low=-1, high=1))),
]
PRODUCTS = [
    *(
        Case(aten.matmul.default, x(*a), x(*b))
        for a, b in (
            ((3,), (3,)),
            ((2, 3), (3,)),
            ((3,), (3, 4)),
            ((2, 3), (3, 4)),
            ((5, 2, 3), (3,)),
            ((3,), (5, 3, 4)),
            ((5, 2, 3), (3, 4)),
            ((2, 3), (5, 3, 4)),
            ((5, 2, 3), (5, 3, 4)),
            ((6, 1, 2, 3), (5, 3, 4)),
        )
    ),
    Case(aten.matmul.default, dynamic(x(2, 4, 3), {0: (1, 2, 5), 1: (1, 4, 6)}), weight(x(3, 5))),
    Case(aten.matmul.default, i64(2, 3), i64(3, 4)),
    Case(aten.matmul.default, i64(5, 2, 3), i64(3, 4)),
    Case(aten.matmul.default, i64(3), i64(3, 4)),
    Case(aten.matmul.default, i64(2, 3), i64(3)),
    Case(aten.matmul.default, i64(3), i64(3)),
    Case(aten.mm.default, x(2, 3), x(3, 4)),
    Case(aten.bmm.default, dynamic(x(2, 4, 3), BATCH), dynamic(x(2, 3, 5), BATCH)),
    Case(aten.mv.default, x(2, 3), x(3)),
    Case(aten.dot.default, x(3), x(3)),
    Case(aten.addmm.default, x(4), x(2, 3), x(3, 4)),
    Case(aten.addmm.default, x(2, 4), x(2, 3), x(3, 4), beta=0.5, alpha=2),
    Case(aten.addmm.default, x(2, 4), x(2, 3), x(3, 4), beta=0),
    Case(aten.addmm.default, weight(x(4)), dynamic(x(2, 3), BATCH), weight(x(3, 4))),
    Case(aten.baddbmm.default, x(2, 4, 5), x(2, 4, 3), x(2, 3, 5), beta=2, alpha=0.5),
    Case(aten.linear.default, i64(2, 4), i64(3, 4), i64(3)),
    Case(aten._trilinear.default, x(5, 3), x(2, 3, 4), x(5, 4), [1, 3], [0], [1, 2], [2, 3]),
    Case(
        aten._trilinear.default,
        dynamic(x(5, 3), {0: (1, 5, 8)}),
        weight(x(2, 3, 4)),
        dynamic(x(5, 4), {0: (1, 5, 8)}),
        [1, 3],
        [0],
        [1, 2],
        [2, 3],
    ),
    Case(aten.addbmm.default, x(4, 5), x(2, 4, 3), x(2, 3, 5)),
    Case(aten.addbmm.default, x(5), dynamic(x(2, 4, 3), BATCH), dynamic(x(2, 3, 5), BATCH)),
    Case(aten.addbmm.default, i64(4, 5), i64(2, 4, 3), i64(2, 3, 5), beta=0, alpha=2),
    Case(aten.addmv.default, x(2), x(2, 3), x(3), alpha=3),
]


@pytest.mark.parametrize("case", [*LINEAR, *PRODUCTS], ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_a_linear_layer_is_a_product_and_a_sum() -> None:
    case = Case(aten.linear.default, x(1, 5, 4), weight(x(3, 4)), weight(x(3)))
    assert kinds(case) == ["matrix_multiply", "elementwise"]


def test_a_linear_layer_multiplies_a_batch_as_one_matrix() -> None:
    case = Case(aten.linear.default, x(5, 1, 4), weight(x(3, 4)), weight(x(3)))
    assert kinds(case) == ["shuffle", "matrix_multiply", "elementwise", "shuffle"]
