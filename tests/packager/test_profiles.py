# SPDX-License-Identifier: Apache-2.0
"""``--profile``: what it may say, and the ranges that follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from trtpack.capture import Captured, capture
from trtpack.convert import convert
from trtpack.inputs import parse_profile
from trtpack.lowering import lower
from trtpack.options import SizeRange
from trtpack.partition import partition
from trtpack.profiles import profile_ranges
from trtpack.target import find_target
from trtpack_runtime.errors import ConfigError


class Two(nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return x.relu() * mask


@pytest.fixture(scope="module")
def captured() -> Captured:
    batch, length = Dim("batch", min=1, max=32), Dim("length", min=2, max=64)
    shapes: Any = {"x": {0: batch, 1: length}, "mask": {0: batch, 1: length}}
    ranges = {(0, 0): SizeRange(1, 8, 32), (0, 1): SizeRange(2, 16, 64)}
    args = (torch.randn(8, 16, 4), torch.randn(8, 16, 4))
    return capture(Two(), args, {}, shapes, ranges)


def test_sizes_it_leaves_out_stay_as_declared(captured: Captured) -> None:
    first, second = profile_ranges(
        captured,
        [parse_profile("x=1x2/16/64x4"), parse_profile("mask=8/16/32x64x4;x=8/16/32x64x4")],
    )
    assert sorted(r.values for r in first.values()) == [(1, 1, 1), (2, 16, 64)]
    assert sorted(r.values for r in second.values()) == [(8, 16, 32), (64, 64, 64)]


def test_each_is_a_profile_of_the_network(captured: Captured) -> None:
    profiles = profile_ranges(captured, [parse_profile("x=1x2x4"), parse_profile("x=8x16x4")])
    lowered = lower(captured)
    target = find_target("orin")
    (segment,) = partition(lowered.captured.graph_module, target).segments
    same = (captured.ranges,)
    network = convert(segment.graph_module, target, captured.ranges, {}, (*profiles, *same)).network
    assert [p.shapes["x"] for p in network.profiles] == [
        ((1, 2, 4), (8, 16, 4), (32, 64, 4)),
        ((1, 2, 4),) * 3,
        ((8, 16, 4),) * 3,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=64x16x4", "dimension 0 of x is declared 1/8/32, which 64/64/64 leaves"),
        ("x=1x16x5", "dimension 2 of x is always 4, not 5/5/5"),
        ("x=1x16", "x has 3 dimensions, not 2"),
        ("y=1x16x4", "the model has no input 'y'"),
        ("x=1x16x4;mask=2x16x4", "dimension 0 of mask is also 1/1/1"),
    ],
)
def test_what_cannot_be_is_told(captured: Captured, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        profile_ranges(captured, [parse_profile(text)])
    assert message in str(caught.value)
    assert text.split("=")[0] in str(caught.value)


def test_a_static_model_takes_none() -> None:
    captured = capture(Two(), (torch.randn(2, 3), torch.randn(2, 3)))
    with pytest.raises(ConfigError, match="no dynamic size"):
        profile_ranges(captured, [parse_profile("x=1x3")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1x3", "names no input"),
        ("x=1x3:float16", "shapes only"),
        ("x=@file.npz", "shapes only"),
        ("x=1x3;x=2x3", "x is there twice"),
        ("x=3/2/1x3", "sizes must rise"),
    ],
)
def test_what_is_no_profile(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_profile(text)
