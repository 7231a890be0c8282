# SPDX-License-Identifier: Apache-2.0
"""Joined tensors against eager PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.packager.converters.harness import Case, Checker, boolean, dynamic, f32, i64, kinds

aten = torch.ops.aten
ANY = dynamic(f32(2, 3), {0: (1, 2, 5)})

CASES = [
    Case(aten.cat.default, [f32(2, 3), f32(2, 4)], 1),
    Case(aten.cat.default, [f32(2, 3), f32(1, 3), f32(4, 3)]),
    Case(aten.cat.default, [f32(2, 3), f32(2, 4)], -1),
    Case(aten.cat.default, [f32(2, 3)]),
    Case(aten.cat.default, [f32(0), f32(2, 3)], 1),
    Case(aten.cat.default, [f32(2, 3), i64(2, 3)]),
    Case(aten.cat.default, [i64(2), boolean(3)]),
    Case(aten.cat.default, [ANY, ANY], 0),
    Case(aten.cat.default, [ANY, ANY], 1),
    Case(
        aten.cat.default,
        [dynamic(f32(2, 3), {1: (1, 3, 6)}), dynamic(f32(2, 5), {1: (2, 5, 6)})],
        1,
    ),
    Case(aten.concat.default, [f32(2, 3), f32(2, 4)], 1),
    Case(aten.stack.default, [f32(2, 3), f32(2, 3)]),
    Case(aten.stack.default, [f32(2, 3), f32(2, 3), f32(2, 3)], 1),
    Case(aten.stack.default, [f32(2, 3), f32(2, 3), f32(2, 3)], -1),
    Case(aten.stack.default, [f32(), f32()]),
    Case(aten.stack.default, [f32(3), f32(3)], 1),
    Case(aten.stack.default, [f32(2, 3)], 2),
    Case(aten.stack.default, [f32(2), i64(2)]),
    Case(aten.stack.default, [ANY, ANY], 0),
    Case(aten.stack.default, [ANY, ANY], 2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


def test_a_stack_is_two_layers() -> None:
    parts = [f32(2, 3)] * 4
    assert kinds(Case(aten.stack.default, parts, 0)) == ["concatenation", "shuffle"]
    assert kinds(Case(aten.stack.default, parts, 2)) == ["concatenation", "shuffle"]
