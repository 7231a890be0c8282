# SPDX-License-Identifier: Apache-2.0
"""Reductions against eager PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given as property_given
from hypothesis import settings
from hypothesis import strategies as st

from tests.packager.converters.harness import (
    Case,
    Checker,
    bf16,
    boolean,
    dynamic,
    f16,
    f32,
    given,
    i32,
    i64,
)

aten = torch.ops.aten
HALF = "float16 is the point"
BOTH = {0: (1, 4, 8), 2: (2, 3, 6)}
ODD = given([[0.0, -0.0], [math.nan, 0.0], [2.5, -1.0]])

CASES = [
    Case(aten.sum.default, f32(2, 3, 4)),
    Case(aten.sum.default, f32()),
    Case(aten.sum.default, i32(2, 3)),
    Case(aten.sum.default, boolean(9)),
    Case(aten.sum.default, f16(9), dtype=torch.float32).float32_only(HALF),
    Case(aten.sum.dim_IntList, f32(2, 3, 4), [1]),
    Case(aten.sum.dim_IntList, f32(2, 3, 4), [0, -1], True),
    Case(aten.sum.dim_IntList, f32(2, 3, 4), []),
    Case(aten.sum.dim_IntList, f32(2, 3, 4), None, True),
    Case(aten.sum.dim_IntList, i64(2, 3), [1], dtype=torch.float32),
    Case(aten.sum.dim_IntList, boolean(2, 3), [1]),
    Case(aten.sum.dim_IntList, bf16(2, 30), [1]),
    Case(aten.mean.dim, bf16(2, 300, low=300, high=400), [1]),
    Case(aten.prod.dim_int, bf16(2, 9), 1),
    Case(aten.amax.default, bf16(2, 30), [1]),
    Case(aten.sum.dim_IntList, dynamic(f32(4, 5, 3), BOTH), [0, 2]),
    Case(aten.mean.default, f32(2, 3, 4)),
    Case(aten.mean.default, i64(9), dtype=torch.float32),
    Case(aten.mean.dim, f32(2, 3, 4), [-1]),
    Case(aten.mean.dim, f32(2, 3, 4), [1, 2], True),
    Case(aten.mean.dim, f32(2, 3), None),
    Case(aten.mean.dim, f32(2, 300, low=300, high=400), [1]),
    Case(aten.mean.dim, dynamic(f32(4, 5, 3), BOTH), [2], True),
    Case(aten.prod.default, f32(2, 3)),
    Case(aten.prod.default, boolean(9)),
    Case(aten.prod.dim_int, f32(2, 3), 1),
    Case(aten.prod.dim_int, i64(2, 3), 0, True),
    Case(aten.prod.dim_int, dynamic(f32(4, 3), {0: (1, 4, 8)}), 1),
    Case(aten.amax.default, f32(2, 3, 4), [1]),
    Case(aten.amax.default, f32(2, 3, 4), [], True),
    Case(aten.amax.default, i64(2, 3), [-1]),
    Case(aten.amax.default, boolean(2, 3), [-1]),
    Case(aten.amax.default, dynamic(f32(4, 5, 3), BOTH), [0, 2]),
    Case(aten.max.default, f32(2, 3, 4)),
    Case(aten.max.default, i32(2, 3)),
    Case(aten.max.default, f32()),
    Case(aten.amin.default, f32(2, 3, 4), [0, 1], True),
    Case(aten.min.default, f32(2, 3, 4)),
    Case(aten.any.default, boolean(2, 3)),
    Case(aten.any.default, boolean()),
    Case(aten.any.dim, ODD, 1),
    Case(aten.any.dim, i64(4, 3, low=0, high=2), 1, True),
    Case(aten.any.dims, boolean(4, 3, 2), [0, 2]),
    Case(aten.any.dims, dynamic(boolean(4, 3, 3), BOTH), [1]),
    Case(aten.all.default, boolean(2)),
    Case(aten.all.dim, ODD, 1),
    Case(aten.all.dim, dynamic(boolean(4, 3, 3), BOTH), 2, True),
    Case(aten.all.dims, boolean(4, 3, 2), [0, 2]),
    Case(aten.all.dims, boolean(4, 3, 2)),
    *(Case(aten.linalg_vector_norm.default, f32(3, 5), p, [1]) for p in (2, 1, 0, 3, 2.5)),
    *(Case(aten.linalg_vector_norm.default, f32(3, 5), p) for p in (math.inf, -math.inf)),
    Case(aten.linalg_vector_norm.default, f32(3, 5), 2, [0, 1], True),
    Case(aten.linalg_vector_norm.default, dynamic(f32(4, 5, 3), BOTH), 2, [2], True),
    Case(aten.linalg_vector_norm.default, f32(3, 5), dtype=torch.float32),
    Case(aten.linalg_vector_norm.default, bf16(3, 50), 2, [1]),
    Case(aten.norm.Scalar, f32(3, 5), 3),
    Case(aten.norm.ScalarOpt_dim, dynamic(f32(4, 5, 3), BOTH), None, [0, 2], True),
    Case(aten.norm.ScalarOpt_dtype, f16(9), 1, dtype=torch.float32).float32_only(HALF),
    Case(aten.norm.ScalarOpt_dim_dtype, f16(9), 2, [0], False, dtype=torch.float32).float32_only(
        HALF
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


@settings(max_examples=30, deadline=None)
@property_given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5).flatmap(
        lambda shape: st.tuples(
            st.just(shape),
            st.sets(st.integers(0, len(shape) - 1)),
            st.booleans(),
            st.sampled_from([aten.sum.dim_IntList, aten.mean.dim, aten.amax.default]),
        )
    )
)
def test_any_dims(drawn: tuple) -> None:
    shape, chosen, keepdim, op = drawn
    Checker()(Case(op, f32(*shape), sorted(chosen), keepdim))
