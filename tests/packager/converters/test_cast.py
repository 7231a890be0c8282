# SPDX-License-Identifier: Apache-2.0
"""Changes of type and copies against eager PyTorch."""

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
    refusal,
    weight,
)

aten = torch.ops.aten
BATCH = {0: (1, 4, 8)}
PIXELS = given([0, 1, 127, 255], torch.uint8)

CASES = [
    Case(aten._to_copy.default, f32(4), dtype=torch.float16),
    Case(aten._to_copy.default, f32(4), dtype=torch.bfloat16),
    Case(aten._to_copy.default, f32(40), dtype=torch.int64),
    Case(aten._to_copy.default, f32(40), dtype=torch.int32),
    Case(aten._to_copy.default, given([0.0, -0.0, 0.2, -3.0]), dtype=torch.bool),
    Case(aten._to_copy.default, i64(9), dtype=torch.float32),
    Case(aten._to_copy.default, i64(9), dtype=torch.bool),
    Case(aten._to_copy.default, boolean(9), dtype=torch.int64),
    Case(aten._to_copy.default, boolean(9), dtype=torch.float16),
    Case(aten._to_copy.default, PIXELS, dtype=torch.float32),
    Case(aten._to_copy.default, PIXELS, dtype=torch.int64),
    Case(aten._to_copy.default, f32(9, low=0, high=255), dtype=torch.uint8),
    Case(aten._to_copy.default, i64(9, low=-600, high=600), dtype=torch.uint8),
    Case(aten._to_copy.default, f32(9)),
    Case(aten._to_copy.default, dynamic(i64(4), BATCH), dtype=torch.float32),
    Case(aten._to_copy.default, weight(f32(4)), dtype=torch.float16),
    Case(torch.ops.prims.convert_element_type.default, i64(4), torch.float32),
    Case(aten.clone.default, f32(4)),
    Case(aten.clone.default, dynamic(f32(4), BATCH), memory_format=torch.contiguous_format),
    Case(aten.view.dtype, f32(4, 3), torch.float32).float32_only("its type is named"),
    Case(aten.view.dtype, boolean(9), torch.uint8),
    Case(aten.copy.default, f32(4, 3), i64(3)),
    Case(aten.copy.default, dynamic(f32(4, 3), BATCH), f32(3)),
    Case(aten.native_dropout.default, f32(4), 0.5, False).answering(0),
    Case(aten.alias.default, f32(4)),
    Case(aten.detach.default, weight(f32(4))),
    Case(aten.lift_fresh_copy.default, f32(4)),
    Case(aten.contiguous.default, f32(4)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_dropping_elements_stays_in_pytorch() -> None:
    reason = refusal(aten.native_dropout.default, f32(4), 0.5, True)
    assert reason == "it drops elements, as in training"


def test_a_copy_is_no_layer() -> None:
    assert kinds(Case(aten.clone.default, f32(4))) == []


def test_bits_of_another_type_stay_in_pytorch() -> None:
    reason = refusal(aten.view.dtype, f32(6), torch.int32)
    assert reason is not None
    assert reason.startswith("reads the bits of a number as another type")
