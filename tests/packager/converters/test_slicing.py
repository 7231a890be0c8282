# SPDX-License-Identifier: Apache-2.0
"""Parts of tensors against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import (
    Case,
    Checker,
    boolean,
    dynamic,
    f32,
    i64,
    kinds,
    refusal,
    size,
)

aten = torch.ops.aten
BATCH = {0: (1, 2, 5)}
LONG = dynamic(f32(2, 8, 3), {0: (1, 2, 5), 1: (4, 8, 12)})

SLICES = [
    *(
        Case(aten.slice.Tensor, f32(3, 8), 1, start, end, step)
        for start, end, step in (
            (0, 5, 1),
            (2, None, 1),
            (None, -1, 1),
            (-3, None, 1),
            (-20, 3, 1),
            (2, 100, 2),
            (1, 8, 3),
            (-7, -2, 2),
        )
    ),
    Case(aten.slice.Tensor, i64(3, 4), 0, 1),
    Case(aten.slice.Tensor, boolean(3, 4), -1, 1, 3),
    Case(aten.slice.Tensor, LONG, 1, 1, 3),
    Case(aten.slice.Tensor, LONG, 1, 2, 9223372036854775807),
    Case(aten.slice.Tensor, LONG, 1, -3, 9223372036854775807),
    Case(aten.slice.Tensor, LONG, 1, 0, -1),
    Case(aten.slice.Tensor, LONG, 1, 0, 9223372036854775807, 2),
    Case(aten.slice.Tensor, LONG, 1, 0, size(0, 1, lambda n: n // 2)),
    Case(aten.slice.Tensor, LONG, 1, size(0, 1, lambda n: n // 2), 9223372036854775807),
    Case(aten.slice.Tensor, LONG, 0, 0, 1),
    Case(aten.slice.Tensor, LONG, 1, -20, 3),
    Case(aten.slice.Tensor, LONG, 1, -20, -2),
]
PARTS = [
    Case(aten.slice_copy.Tensor, f32(3, 8), 1, 2, -1, 2),
    Case(aten.select_copy.int, f32(3, 4), 1, -2),
    Case(aten.unbind_copy.int, f32(3, 2), 1),
    Case(aten.split_copy.Tensor, f32(3, 5), 2, 1),
    Case(aten.narrow_copy.default, f32(3, 5), 1, 1, 2),
    Case(aten.diagonal_copy.default, f32(3, 4), 1),
    Case(aten.unfold_copy.default, f32(3, 8), 1, 3, 2),
    Case(aten.select.int, f32(3, 4, 5), 1, 2),
    Case(aten.select.int, f32(3, 4, 5), -1, -1),
    Case(aten.select.int, f32(3), 0, 1),
    Case(aten.select.int, LONG, 0, 0),
    Case(aten.select.int, LONG, 1, -1),
    Case(aten.select.int, boolean(3, 4), 0, 1),
    Case(aten.unbind.int, dynamic(f32(2, 3, 4), BATCH), 1),
    Case(aten.unbind.int, f32(3)),
    Case(aten.split.Tensor, f32(2, 7), 3, 1),
    Case(aten.split.Tensor, LONG, 1, -1),
    Case(aten.split_with_sizes.default, f32(2, 7), [1, 4, 2], 1),
    Case(aten.chunk.default, f32(2, 8), 3, 1),
    Case(aten.chunk.default, f32(2, 8), 1),
    Case(aten.split_with_sizes_copy.default, f32(2, 7), [1, 4, 2], 1),
    Case(aten.unsafe_split_with_sizes.default, f32(2, 7), [1, 4, 2], 1),
    Case(aten.unsafe_split.Tensor, f32(2, 7), 4, 1),
    Case(aten.unsafe_chunk.default, f32(2, 8), 2, 1),
    Case(aten.tensor_split.sections, f32(2, 7), 3, 1),
    Case(aten.tensor_split.indices, f32(2, 7), [2, 5], 1),
    Case(aten.narrow.default, f32(2, 7), 1, 2, 3),
    Case(aten.narrow.default, f32(2, 7), 1, -3, 2),
    Case(aten.unfold.default, f32(2, 9), 1, 3, 2),
    Case(aten.unfold.default, dynamic(f32(2, 9, 4), BATCH), 1, 4, 1),
    Case(aten.diagonal.default, f32(3, 4)),
    Case(aten.diagonal.default, f32(2, 3, 4), 1, 1, 2),
    Case(aten.diagonal.default, f32(2, 5, 4), -2, 1, 2),
    Case(aten.diagonal.default, f32(5, 2, 4), 0, 2, 0),
    Case(
        aten.diagonal.default,
        dynamic(f32(2, 4, 4), {0: (1, 2, 5), 1: (3, 4, 6), 2: (3, 4, 6)}),
        1,
        1,
        2,
    ),
]
ORDERS = [
    Case(aten.flip.default, f32(3, 4), [1]),
    Case(aten.flip.default, LONG, [0, -2]),
    Case(aten.flip.default, f32(3), []),
    Case(aten.roll.default, f32(3, 8), [3], [1]),
    Case(aten.roll.default, f32(3, 8), [-3, 1], [1, 0]),
    Case(aten.roll.default, f32(3, 8), [11], [1]),
    Case(aten.roll.default, f32(3, 8), [5]),
    Case(aten.roll.default, LONG, [2], [1]),
    Case(aten.roll.default, LONG, [-2, 1], [1, 0]),
]


@pytest.mark.parametrize("case", [*SLICES, *PARTS, *ORDERS], ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_an_element_is_a_slice_and_a_reshape() -> None:
    assert kinds(Case(aten.select.int, f32(3, 8), 1, -1)) == ["slice", "shuffle"]


def test_each_is_one_layer() -> None:
    assert kinds(Case(aten.slice.Tensor, f32(3, 8), 1, -3, None)) == ["slice"]
    assert kinds(Case(aten.roll.default, f32(3, 8), [2, 1], [1, 0])) == ["slice"]
    assert kinds(Case(aten.slice.Tensor, f32(3, 8), 1, 0, 100)) == []


def test_strides_stay_in_pytorch() -> None:
    reason = refusal(aten.as_strided.default, f32(6), [2, 3], [3, 1])
    assert reason is not None
    assert reason.startswith("reads or writes elements by their place in memory")
