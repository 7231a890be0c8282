# SPDX-License-Identifier: Apache-2.0
"""Padding against eager PyTorch."""

from __future__ import annotations

import math

import pytest
import torch

from tests.packager.converters.harness import Case, Checker, boolean, dynamic, f32, i64, kinds

aten = torch.ops.aten
LINE, IMAGE, VOLUME = f32(2, 3, 8), f32(2, 3, 6, 5), f32(1, 2, 4, 5, 3)
ANY = dynamic(IMAGE, {0: (1, 2, 4), 2: (4, 6, 9)})

CASES = [
    Case(aten.constant_pad_nd.default, LINE, [1, 2]),
    Case(aten.constant_pad_nd.default, LINE, [1, 2, 0, 1, 1, 0], 1.5),
    Case(aten.constant_pad_nd.default, LINE, [-1, 2], -math.inf),
    Case(aten.constant_pad_nd.default, LINE, [-1, -2]),
    Case(aten.constant_pad_nd.default, f32(0, 3), [1, 1, 1, 1], 2.0),
    Case(aten.constant_pad_nd.default, f32(2, 0), [0, 1, -1, 1]),
    Case(aten.constant_pad_nd.default, LINE, [0, 0]),
    Case(aten.constant_pad_nd.default, ANY, [1, 0, 2, 1], 3.0),
    Case(aten.constant_pad_nd.default, i64(2, 3), [1, 1], 7),
    Case(aten.constant_pad_nd.default, f32(0, 3), [1, 1, 1, 1], 7.0),
    Case(aten.constant_pad_nd.default, boolean(2, 3), [1, 1], True),
    Case(aten.reflection_pad1d.default, LINE, [3, 2]),
    Case(aten.reflection_pad2d.default, IMAGE, [1, 2, 3, 0]),
    Case(aten.reflection_pad2d.default, ANY, [1, 2, 3, 0]),
    Case(aten.reflection_pad2d.default, f32(3, 6, 5), [1, 1, 1, 1]),
    Case(aten.reflection_pad3d.default, VOLUME, [1, 1, 2, 0, 1, 1]),
    Case(aten.replication_pad1d.default, LINE, [3, 12]),
    Case(aten.replication_pad2d.default, IMAGE, [1, 2, 3, 0]),
    Case(aten.replication_pad2d.default, ANY, [0, 2, 3, 1]),
    Case(aten.replication_pad3d.default, VOLUME, [1, 1, 2, 0, 1, 1]),
    Case(aten.pad.default, LINE, [1, 2], "circular"),
    Case(aten.pad.default, ANY, [1, 2, 3, 1], "circular"),
    Case(aten.pad.default, LINE, [1, 2], "constant", 2.0),
    Case(aten.pad.default, LINE, [1, 2], "reflect"),
    Case(aten.pad.default, LINE, [1, 2], "replicate"),
    Case(aten._pad_circular.default, IMAGE, [1, 2, 3, 1]),
    Case(aten._pad_circular.default, IMAGE, [-1, 2, 3, -2]),
    Case(aten.pad.default, ANY, [-1, 2, 0, 1], "circular"),
    Case(aten.pad.default, ANY, [-1, 2, 0, -1], "reflect"),
    Case(aten.pad.default, ANY, [-1, 2, 0, -1], "replicate"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_pytorch(case: Case, check: Checker) -> None:
    check(case)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_padding_is_one_slice(mode: str) -> None:
    assert kinds(Case(aten.pad.default, LINE, [1, 2], mode)) == ["slice"]
