# SPDX-License-Identifier: Apache-2.0
"""Strided views of tensors that fill their memory become indexing; others stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.export import Dim

from trtpack.capture import capture

aten = torch.ops.aten
View = Callable[[torch.Tensor], torch.Tensor]


class Viewed(nn.Module):
    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.view(x) * 2


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.as_strided((2, 2), (1, 2), 1),
        lambda x: x.as_strided((x.shape[0], 3, 2), (x.shape[1], 2, 1)),
        lambda x: x.as_strided((3,), (0,), 5),
        lambda x: x.as_strided((), (), 4),
        lambda x: x[1:].as_strided((2, 3), (1, 1)),
        lambda x: x[1:].as_strided((2, 3), (1, 1), 7),
        lambda x: x.t().as_strided((2, 2), (1, 2)),
        lambda x: x.reshape(2, 2, 6).permute(2, 0, 1).as_strided((5, 3), (4, 1), 1),
        lambda x: x.t().as_strided_scatter(torch.ones(2, 2), (2, 2), (1, 2)),
    ],
)
def test_a_view_of_a_tensor_that_fills_its_memory_is_an_index(view: View) -> None:
    x = torch.randn(4, 6)
    captured = capture(Viewed(view), (x,)).graph_module
    assert not captured.graph.find_nodes(op="call_function", target=aten.as_strided.default)
    torch.testing.assert_close(captured(x)[0], view(x) * 2, rtol=0, atol=0)


def test_windows_of_a_dynamic_batch_are_an_index() -> None:
    def windows(x: torch.Tensor) -> torch.Tensor:
        return x.as_strided((x.shape[0], 3, 2), (x.shape[1], 2, 1), 0)

    shapes = {"x": {0: Dim("batch", min=2, max=8)}}
    captured = capture(Viewed(windows), (torch.randn(4, 6),), dynamic_shapes=shapes).graph_module
    assert not captured.graph.find_nodes(op="call_function", target=aten.as_strided.default)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[1:].as_strided((2, 3), (1, 1), 0),
        lambda x: x[:1].as_strided((2, 6), (6, 1)),
    ],
)
def test_what_lies_elsewhere_in_memory_stays_as_it_is(view: View) -> None:
    captured = capture(Viewed(view), (torch.randn(4, 6),)).graph_module
    assert captured.graph.find_nodes(op="call_function", target=aten.as_strided.default)


def test_what_is_scattered_into_a_view_of_a_contiguous_tensor_has_indices() -> None:
    def scattered(x: torch.Tensor) -> torch.Tensor:
        return torch.as_strided_scatter(x, x[:2, :3] + 1, (2, 3), (7, 2), 1)

    x = torch.randn(4, 6)
    captured = capture(Viewed(scattered), (x,)).graph_module
    target = aten.as_strided_scatter.default
    assert not captured.graph.find_nodes(op="call_function", target=target)
    torch.testing.assert_close(captured(x)[0], scattered(x) * 2, rtol=0, atol=0)
