# SPDX-License-Identifier: Apache-2.0
"""Activation functions against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    bf16,
    dynamic,
    f16,
    f32,
    given,
    i32,
    i64,
    kinds,
    refusal,
    weight,
)

aten = torch.ops.aten
BATCH = {0: (1, 4, 8)}

CASES = [
    Case(aten.relu.default, f32(2, 3)),
    Case(aten.relu.default, i64(5)),
    Case(aten.relu.default, i32(2, 2)),
    Case(aten.relu.default, bf16(2, 3)),
    Case(aten.relu6.default, f32(4, 3, low=-9, high=9)),
    Case(aten.relu6.default, i64(9, low=-9, high=9)),
    Case(aten.hardtanh.default, i64(9, low=-9, high=9), -2, 3),
    Case(aten.hardtanh.default, f32(4, 3)),
    Case(aten.hardtanh.default, f32(4, 3), -0.5, 2),
    Case(aten.leaky_relu.default, f32(4, 3)),
    Case(aten.leaky_relu.default, f32(4, 3), 0.2),
    Case(aten.rrelu_with_noise_functional.default, f32(4, 3), f32(4, 3), 0.1, 0.4).answering(0),
    Case(aten.prelu.default, f32(2, 3, 4), weight(f32(3))),
    Case(aten.prelu.default, f32(2, 3, 4), weight(f32(1))),
    Case(aten.prelu.default, f32(2, 3, 4), f32(3)),
    Case(aten.prelu.default, dynamic(f32(4, 3, 5), {0: (1, 4, 8), 2: (2, 5, 6)}), weight(f32(3))),
    Case(aten.prelu.default, f32(6), weight(f32(1))),
    Case(aten._prelu_kernel.default, f32(2, 3, 4), weight(f32(1, 3, 1))),
    Case(aten.elu.default, f32(2, 3), alpha=0.5),
    Case(aten.elu.default, f16(4, 3), alpha=1.67, scale=1.05),
    Case(aten.selu.default, f32(4, 3)),
    Case(aten.celu.default, f32(4, 3)),
    Case(aten.celu.default, f32(4, 3), 0.7),
    Case(aten.gelu.default, f32(4, 3)),
    Case(aten.gelu.default, f32(4, 3), approximate="tanh"),
    Case(aten.gelu.default, dynamic(f32(4, 3), BATCH)),
    Case(aten.gelu.default, bf16(4, 3)),
    Case(aten.sigmoid.default, f32()),
    Case(aten.sigmoid.default, i64(4)),
    Case(aten.tanh.default, dynamic(f32(4, 3), BATCH)),
    Case(aten.tanh.default, i64(4)),
    Case(aten.silu.default, dynamic(f32(4, 3), BATCH)),
    Case(aten.hardsigmoid.default, f32(40, low=-5, high=5)),
    Case(aten.hardswish.default, f32(40, low=-5, high=5)),
    Case(aten.softplus.default, f32(4, 3)),
    Case(aten.softplus.default, given([-100.0, -20, 0, 19, 21, 200])),
    Case(aten.softplus.default, f32(20), beta=2, threshold=1),
    Case(aten.mish.default, f32(20, low=-9, high=9)),
    Case(aten.mish.default, given([-50.0, 0, 30, 100])),
    Case(aten.log_sigmoid.default, given([-200.0, -20, 0, 1, 30])),
    Case(aten.log_sigmoid_forward.default, f32(4, 3)).answering(0),
    Case(aten.glu.default, f32(2, 6)),
    Case(aten.glu.default, f32(4, 6), 0),
    Case(aten.glu.default, dynamic(f32(4, 6, 3), {0: (1, 4, 8), 2: (1, 3, 5)}), 1),
    Case(aten.glu.default, dynamic(f32(4, 6), {0: (2, 4, 8)}), 1),
    Case(aten.threshold.default, f32(20), 0.5, -7),
    Case(aten.threshold.default, i64(20), 2, -7),
    Case(aten.hardshrink.default, f32(20)),
    Case(aten.hardshrink.default, f32(20), 1),
    Case(aten.softshrink.default, f32(20), 0.7),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_a_scaled_input_stays_in_pytorch() -> None:
    assert refusal(aten.elu.default, f32(2), input_scale=2) == "kSELU has no input_scale, got 2"


def test_gelu_is_one_layer_where_tensorrt_has_it() -> None:
    case = Case(aten.gelu.default, f32(2, 3))
    assert kinds(case, "orin@jetpack-6.2") == ["activation"]
    assert len(kinds(case, "orin@jetpack-6.0")) == 5


def test_random_slopes_stay_in_pytorch() -> None:
    noisy = (aten.rrelu_with_noise_functional.default, f32(4, 3), f32(4, 3))
    assert refusal(*noisy, training=True) == "its slopes are random, as in training"
