# SPDX-License-Identifier: Apache-2.0
"""Normalisations against eager PyTorch."""

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
    kinds,
    refusal,
    weight,
)

aten = torch.ops.aten
BATCH = {0: (1, 4, 8)}
IMAGES = dynamic(f32(4, 6, 5, 5), {0: (1, 4, 8), 2: (3, 5, 7), 3: (3, 5, 7)})


def _parameters(*shape: int) -> tuple:
    return weight(f32(*shape)), weight(f32(*shape))


def _statistics(channels: int) -> tuple:
    return weight(f32(channels)), weight(f32(channels, low=0.5, high=2))


CASES = [
    Case(aten.layer_norm.default, f32(2, 5, 8), [8], *_parameters(8)),
    Case(aten.layer_norm.default, f32(2, 5, 8), [8]),
    Case(aten.layer_norm.default, f32(2, 5, 8), [8], weight(f32(8))),
    Case(aten.layer_norm.default, f32(2, 5, 8), [8], bias=weight(f32(8)), eps=1e-3),
    Case(aten.layer_norm.default, f32(2, 5, 8), [5, 8], *_parameters(5, 8)),
    Case(aten.layer_norm.default, f32(2, 5, 8), [2, 5, 8]),
    Case(aten.layer_norm.default, f32(8), [8], *_parameters(8)),
    Case(aten.layer_norm.default, f32(2, 5, 8), [8], f32(8), f32(8)),
    Case(aten.layer_norm.default, bf16(2, 5, 8), [8], weight(bf16(8)), weight(bf16(8))),
    Case(aten.layer_norm.default, dynamic(f32(4, 5, 8), {0: (1, 4, 8), 1: (1, 5, 9)}), [8]),
    Case(aten.layer_norm.default, dynamic(f32(4, 8), BATCH), [8], *_parameters(8)),
    Case(aten.native_layer_norm.default, f32(2, 5, 8), [8], *_parameters(8), 1e-5).answering(0),
    Case(aten.native_layer_norm.default, f32(2, 5, 8), [8], None, None, 1e-5).answering(0),
    Case(aten.rms_norm.default, f32(2, 5, 8), [8], weight(f32(8))),
    Case(aten.rms_norm.default, f32(2, 5, 8), [8], weight(f32(8)), 1e-3),
    Case(aten.rms_norm.default, f32(2, 5, 8, low=-1e-3, high=1e-3), [8]),
    Case(aten.rms_norm.default, f32(2, 5, 8), [5, 8]),
    Case(aten.rms_norm.default, bf16(2, 5, 64), [64], weight(bf16(64))),
    Case(aten.group_norm.default, bf16(2, 6, 4, 4), 3, weight(bf16(6)), weight(bf16(6))),
    Case(aten.rms_norm.default, dynamic(f32(4, 8), BATCH), [8], weight(f32(8))),
    Case(aten.group_norm.default, f32(2, 6, 4, 4), 3, *_parameters(6)),
    Case(aten.group_norm.default, f32(2, 6, 4, 4), 3),
    Case(aten.group_norm.default, f32(2, 6, 4, 4), 1, *_parameters(6)),
    Case(aten.group_norm.default, f32(2, 6, 4, 4), 6, *_parameters(6)),
    Case(aten.group_norm.default, f32(2, 6, 9), 2, weight(f32(6))),
    Case(aten.group_norm.default, f32(2, 6, 3, 4, 2), 2, *_parameters(6), 1e-2),
    Case(aten.group_norm.default, f32(4, 6), 2, *_parameters(6)),
    Case(aten.group_norm.default, f32(2, 6, 4, 4), 3, f32(6), f32(6)),
    Case(aten.group_norm.default, IMAGES, 3, *_parameters(6)),
    Case(
        aten.native_group_norm.default, f32(2, 6, 4, 4), *_parameters(6), 2, 6, 16, 3, 1e-5
    ).answering(0),
    Case(
        aten.instance_norm.default,
        *(f32(2, 6, 4, 4), *_parameters(6), None, None, True, 0.1, 1e-5, True),
    ),
    Case(aten.instance_norm.default, IMAGES, None, None, None, None, True, 0.1, 1e-5, True),
    Case(
        aten.instance_norm.default,
        *(f32(2, 6, 9), *_parameters(6), *_statistics(6), False, 0.1, 1e-5, True),
    ),
    Case(
        aten._native_batch_norm_legit_no_training.default,
        *(f32(2, 6, 4, 4), *_parameters(6), *_statistics(6), 0.1, 1e-5),
    ).answering(0),
    Case(
        aten._native_batch_norm_legit_no_training.default,
        *(IMAGES, None, None, *_statistics(6), 0.1, 1e-5),
    ).answering(0),
    Case(
        aten.batch_norm.default,
        *(f32(4, 6), *_parameters(6), *_statistics(6), False, 0.1, 1e-5, True),
    ),
    Case(
        aten.batch_norm.default,
        *(dynamic(f32(4, 6, 5), BATCH), weight(f32(6)), None, *_statistics(6)),
        *(False, 0.1, 1e-3, True),
    ),
    Case(
        aten.batch_norm.default,
        *(f32(4, 6, 5), f32(6), f32(6), f32(6), f32(6, low=0.5, high=2), False, 0.1, 1e-3, True),
    ),
    Case(
        aten.batch_norm.default,
        *(f32(4, 6, 5, 5), *_parameters(6), None, None, True, 0.1, 1e-5, True),
    ),
    Case(
        aten._native_batch_norm_legit.no_stats,
        *(f32(4, 6, 5), *_parameters(6), True, 0.1, 1e-5),
    ).answering(0),
    Case(
        aten.batch_norm.default,
        *(f16(2, 6, 4, 4), *_parameters(6), *_statistics(6), False, 0.1, 1e-5, True),
    ).float32_only("float32 statistics of a float16 input are the point"),
    Case(
        aten.batch_norm.default,
        *(bf16(4, 6, 9, 9), *(weight(bf16(6, low=0.5)) for _ in range(4)), False, 0.1, 1e-5, True),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_an_inference_batch_norm_is_one_layer() -> None:
    parameters = (*_parameters(6), *_statistics(6), False, 0.1, 1e-5, True)
    assert kinds(Case(aten.batch_norm.default, f32(2, 6, 4, 4), *parameters)) == ["scale_nd"]


def test_group_norm_is_one_layer_where_it_scales_channels() -> None:
    case = Case(aten.group_norm.default, f32(2, 6, 4, 4), 3, *_parameters(6))
    assert kinds(case) == ["normalization_v2"]
    assert kinds(case, "orin@jetpack-6.2") == ["normalization", "scale_nd"]


def test_layer_norm_in_half_is_primitives_where_they_are_faster() -> None:
    wide = Case(aten.layer_norm.default, f32(2, 8), [8], *_parameters(8))
    half = Case(aten.layer_norm.default, f16(2, 8), [8])
    assert kinds(half, "orin@jetpack-6.2") == ["normalization"]
    assert kinds(wide, "orin@jetpack-6.0") == ["normalization"]
    made = kinds(half, "orin@jetpack-6.0")
    assert made.count("reduce") == 2
    assert "normalization" not in made


def test_training_stays_in_pytorch() -> None:
    parameters = (None, None, weight(f32(6)), weight(f32(6)), True, 0.1, 1e-5, True)
    reason = refusal(aten.batch_norm.default, f32(2, 6, 4, 4), *parameters)
    assert reason == "it updates running statistics, as in training"


def test_dynamic_channels_stay_in_pytorch() -> None:
    signal = dynamic(f32(2, 6, 5), {1: (2, 6, 8)})
    reason = refusal(aten.instance_norm.default, signal, *[None] * 4, True, 0.1, 1e-5, True)
    assert reason == "the number of channels is dynamic"
