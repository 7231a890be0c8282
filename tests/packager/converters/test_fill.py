# SPDX-License-Identifier: Apache-2.0
"""Tensors of one number and ramps against eager PyTorch."""

from __future__ import annotations

import math

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    boolean,
    dynamic,
    f32,
    i64,
    refused,
    size,
)

aten = torch.ops.aten
X = dynamic(f32(4, 3), {0: (1, 4, 8)})
IDS = dynamic(i64(4, 3), {0: (1, 4, 8)})

CASES = [
    Case(aten.full.default, [2, 3], 1.5),
    Case(aten.full.default, [2, 3], -math.inf, dtype=torch.float16),
    Case(aten.full.default, [2, 3], True, dtype=torch.bool),
    Case(aten.full.default, [], 7),
    Case(aten.full_like.default, X, 2.5),
    Case(aten.full_like.default, X, 2, dtype=torch.int64),
    Case(aten.full_like.default, X, size(0, 0), dtype=torch.int64),
    Case(aten.new_full.default, X, [size(0, 0), 2], 3),
    Case(aten.fill.Scalar, X, 3),
    Case(aten.fill.Tensor, X, f32()),
    Case(aten.zeros.default, [2, 3]),
    Case(aten.zeros_like.default, IDS),
    Case(aten.zeros_like.default, boolean(3)),
    Case(aten.new_zeros.default, IDS, [size(0, 0), size(0, 0)]),
    Case(aten.ones.default, [2, 3], dtype=torch.int32),
    Case(aten.ones_like.default, X, dtype=torch.bool),
    Case(aten.new_ones.default, X, [2, size(0, 0)]),
    Case(aten.scalar_tensor.default, 2.5),
    Case(aten.scalar_tensor.default, 2, dtype=torch.int64),
    Case(aten.arange.default, 5),
    Case(aten.arange.default, 2.5),
    Case(aten.arange.start, 2, 9, dtype=torch.float32),
    Case(aten.arange.start_step, 9, 2, -3),
    Case(aten.arange.start_step, 0, 1, 0.3),
    Case(aten.linspace.default, 0, 1, 7),
    Case(aten.linspace.default, 3, -1, 5, dtype=torch.float16),
    Case(aten.linspace.default, 4.3, -3, 50, dtype=torch.int64),
    Case(aten.linspace.default, 4.3, 50, 50, dtype=torch.int32),
    Case(aten.linspace.default, 0, 7, 50, dtype=torch.uint8),
    Case(aten.linspace.default, 4.3, -3, 50, dtype=torch.float16),
    Case(aten.linspace.default, 0, size(0, 0), 7).beside(X),
    Case(aten.linspace.Tensor_Tensor, f32(), f32(), 7),
    Case(aten.linspace.Tensor_Scalar, f32(), 2.5, 1),
    Case(aten.linspace.Scalar_Tensor, 4.3, i64(), 0),
    Case(aten.logspace.default, 4.3, -3, 4, dtype=torch.bfloat16),
    Case(aten.logspace.default, 4.3, -3, 50, 2.0, dtype=torch.int32),
    Case(aten.logspace.default, -1, size(0, 0), 5, 2.0).beside(X),
    Case(aten.logspace.Tensor_Tensor, f32(), f32(), 6),
    Case(aten.logspace.Tensor_Scalar, f32(), 0.5, 5, 2.0),
    Case(aten.logspace.Scalar_Tensor, 0.5, f32(), 5),
    Case(aten.eye.default, 3),
    Case(aten.eye.m, 3, 5, dtype=torch.bool),
    Case(aten.empty.memory_format, [2, 3]).with_any_values(),
    Case(aten.empty_like.default, X).with_any_values(),
    Case(aten.new_empty.default, X, [size(0, 0), 2], dtype=torch.int64).with_any_values(),
    Case(aten.empty_permuted.default, [2, 3], [1, 0]).with_any_values(),
    Case(aten.new_empty_strided.default, X, [2, 3], [3, 1]).with_any_values(),
    Case(aten.empty_strided.default, [2, 3], [3, 1]).with_any_values(),
    Case(aten.full.default, [size(0, 0), 3], 0.5).beside(X),
    Case(aten.full.default, [2, 3], size(0, 0)).beside(X),
    Case(aten.zeros.default, [size(0, 0), 1]).beside(X),
    Case(aten.ones.default, [1, size(0, 0)], dtype=torch.bool).beside(X),
    Case(aten.scalar_tensor.default, size(0, 0), dtype=torch.float32).beside(X),
    Case(aten.arange.default, size(0, 0)).beside(X),
    Case(aten.arange.start, size(0, 0), size(0, 0, lambda s: 2 * s)).beside(X),
    Case(aten.arange.start_step, 0, size(0, 0, lambda s: 2 * s), 2).beside(X),
    Case(aten.arange.start_step, 0, size(0, 0), dtype=torch.float32).beside(X),
    Case(aten.eye.default, size(0, 0)).beside(X),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


@pytest.mark.parametrize(
    "case",
    [
        Case(aten.linspace.Tensor_Scalar, f32(), 3, 5, dtype=torch.int64),
        Case(aten.linspace.default, 0, size(0, 0), 9, dtype=torch.int64).beside(X),
        Case(aten.logspace.Scalar_Tensor, 1, f32(), 5, dtype=torch.int32),
    ],
    ids=str,
)
def test_whole_steps_of_a_run_are_refused(case: Case) -> None:
    reason = "PyTorch computes whole steps in float64, which TensorRT has not"
    assert refused(case) == reason
