# SPDX-License-Identifier: Apache-2.0
"""Sampling at a grid of points against eager PyTorch."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.packager.converters.harness import Case, Checker, dynamic, f32, kinds, refusal
from trtpack.converters.sampling import TOO_LARGE, WRONG_BICUBIC

aten = torch.ops.aten
IMAGE, VOLUME = f32(2, 3, 5, 6), f32(2, 3, 3, 4, 5)
GRID = f32(2, 4, 3, 2, low=-1.3, high=1.3)
POINTS = f32(2, 2, 3, 4, 3, low=-2, high=2)

SAMPLES = [
    *(
        Case(aten.grid_sampler.default, IMAGE, GRID, mode, padding, aligned)
        for mode, padding, aligned in itertools.product((0, 1, 2), (0, 1, 2), (False, True))
    ),
    Case(
        aten.grid_sampler_2d.default,
        dynamic(IMAGE, {0: (1, 2, 4)}),
        dynamic(GRID, {0: (1, 2, 4)}),
        0,
        0,
        True,
    ),
    Case(
        aten.grid_sampler_2d.default,
        dynamic(IMAGE, {0: (1, 2, 4), 2: (1, 5, 7), 3: (1, 6, 9)}),
        dynamic(GRID, {0: (1, 2, 4), 1: (1, 4, 6)}),
        0,
        2,
        False,
    ),
    *(
        Case(aten.grid_sampler_3d.default, VOLUME, POINTS, mode, padding, aligned)
        for mode, padding, aligned in itertools.product((0, 1), (0, 1, 2), (False, True))
    ),
    Case(
        aten.grid_sampler_3d.default,
        dynamic(VOLUME, {0: (1, 2, 3), 3: (1, 4, 6)}),
        dynamic(POINTS, {0: (1, 2, 3), 2: (1, 3, 5)}),
        0,
        2,
        True,
    ),
]
NO_HALF = "PyTorch has no grid_sampler of float16 on a CPU"


@pytest.mark.parametrize("case", SAMPLES, ids=str)
def test_samples_as_pytorch_does(case: Case, check: Checker) -> None:
    check(case.float32_only(NO_HALF))


def test_volumes_are_sampled_by_a_layer_from_tensorrt_11_on() -> None:
    case = Case(aten.grid_sampler_3d.default, VOLUME, POINTS, 0, 0, True)
    assert kinds(case) == ["grid_sample"]
    assert "grid_sample" not in kinds(case, "orin@jetpack-6.2")


def test_images_are_sampled_by_a_layer_from_tensorrt_10_on() -> None:
    for mode, padding in itertools.product((0, 1), (0, 1, 2)):
        case = Case(aten.grid_sampler_2d.default, IMAGE, GRID, mode, padding, True)
        assert kinds(case, "orin@jetpack-6.2") == ["grid_sample"]
        assert "grid_sample" not in kinds(case, "orin@jetpack-6.0")


def test_bicubic_sampling_stays_in_pytorch_before_tensorrt_10() -> None:
    for padding in (0, 1, 2):
        told = (aten.grid_sampler_2d.default, IMAGE, GRID, 2, padding, False)
        assert refusal(*told, target="orin@jetpack-6.0") == WRONG_BICUBIC
        assert refusal(*told, target="orin@jetpack-6.2") is None


def test_sizes_that_float16_lacks_stay_in_pytorch_before_tensorrt_10() -> None:
    for size, reason in ((2048, None), (2049, TOO_LARGE)):
        told = (aten.grid_sampler_2d.default, f32(1, 1, 2, size), f32(1, 1, 2, 2), 0, 0, False)
        assert refusal(*told, target="orin@jetpack-6.0") == reason
        assert refusal(*told, target="orin@jetpack-6.2") is None
