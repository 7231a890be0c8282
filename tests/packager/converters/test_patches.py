# SPDX-License-Identifier: Apache-2.0
"""Patches of images against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import Case, Checker, dynamic, f32, kinds, refusal, size

aten = torch.ops.aten
FOLD, UNFOLD = aten.col2im.default, aten.im2col.default
IMAGE = f32(2, 3, 7, 8)
ANY = dynamic(IMAGE, {0: (1, 2, 4), 2: (5, 7, 9), 3: (6, 8, 12)})
ANY_PATCHES = dynamic(f32(2, 18, 16), {0: (1, 2, 3)})
ROUNDED = "PyTorch rounds after every element it adds"

CASES = [
    Case(UNFOLD, IMAGE, [3, 2], [1, 1], [0, 0], [1, 1]),
    Case(UNFOLD, IMAGE, [3, 2], [2, 1], [1, 2], [2, 3]),
    Case(UNFOLD, f32(3, 7, 8), [2, 2], [1, 1], [0, 0], [2, 2]),
    Case(UNFOLD, ANY, [3, 2], [1, 2], [1, 1], [2, 1]),
    Case(FOLD, f32(2, 18, 16), [6, 5], [3, 2], [1, 1], [0, 0], [1, 1]),
    Case(FOLD, f32(18, 8), [6, 7], [3, 2], [1, 2], [0, 1], [2, 2]),
    Case(FOLD, f32(2, 12, 6), [7, 8], [2, 2], [2, 2], [1, 0], [3, 3]),
    Case(FOLD, f32(2, 18, 20), [9, 8], [3, 3], [1, 1], [1, 1], [2, 2]).float32_only(ROUNDED),
    Case(FOLD, f32(2, 12, 9), [7, 8], [2, 3], [2, 1], [1, 2], [3, 4]),
    Case(FOLD, f32(2, 12, 12), [6, 8], [2, 2], [1, 1], [0, 0], [2, 2]),
    Case(FOLD, ANY_PATCHES, [6, 5], [3, 2], [1, 1], [0, 0], [1, 1]).float32_only(ROUNDED),
    Case(
        FOLD,
        dynamic(f32(1, 4, 9), {2: (5, 9, 16)}),
        [2, size(0, 2, lambda s: s + 1)],
        [2, 2],
        [1, 1],
        [0, 0],
        [1, 1],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_patches_side_by_side_are_only_put_in_order() -> None:
    layers = kinds(Case(FOLD, f32(2, 12, 12), [6, 8], [2, 2], [1, 1], [0, 0], [2, 2]))
    assert set(layers) == {"shuffle"}


def test_patches_of_unknown_depth_are_only_put_in_order() -> None:
    patches = dynamic(f32(2, 18, 4), {1: (6, 18, 24)})
    side_by_side = ([6, 4], [3, 2], [1, 1], [0, 0], [3, 2])
    assert refusal(FOLD, patches, *side_by_side) is None
    overlapping = ([4, 3], [3, 2], [1, 1], [0, 0], [1, 1])
    assert refusal(FOLD, patches, *overlapping) == "the number of channels is dynamic"
