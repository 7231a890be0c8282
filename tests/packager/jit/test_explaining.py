# SPDX-License-Identifier: Apache-2.0
"""``trtpack.explain`` tells graphs, breaks and segments, and leaves the model as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import trtpack


class Breaking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        if h.sum() > 1e6:
            h = h * 2
        return torch.relu(h)


def test_graphs_breaks_and_segments_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = trtpack.explain(
        Breaking(), torch.ones(2, 4), options={"target": "orin", "torch_ops": ["aten.relu"]}
    )
    assert f"{found}\n" == capsys.readouterr().out
    assert [graph.begins.rpartition(":")[0] for graph in found.graphs] == ["test_explaining.py"] * 2
    assert [part.kind for graph in found.graphs for part in graph.segments] == [
        "tensorrt",
        "inductor",
    ]
    assert found.graphs[1].refused == (("aten.relu.default", "kept in PyTorch by --torch-op"),)
    assert found.breaks[0].where.endswith("(if h.sum() > 1e6:)")
    assert found.breaks[0].reason == "it branches on a tensor's value"
