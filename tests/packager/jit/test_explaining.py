# SPDX-License-Identifier: Apache-2.0
"""``trtpack.explain`` tells graphs, breaks and segments, and leaves the model as it was."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

import trtpack
from trtpack.errors import ConfigError


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
        "reference",
    ]
    assert found.graphs[1].refused == (("aten.relu.default", "kept in PyTorch by --torch-op"),)
    assert found.breaks[0].where.endswith("(if h.sum() > 1e6:)")
    assert found.breaks[0].reason == "it branches on a tensor's value"


class Skipping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Counting()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = self.inner(x)
        return x


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print("counted")
        return x * torch.unique(x).sum()


def test_a_break_before_any_operator_and_a_function_left_to_python_are_told() -> None:
    found = trtpack.explain(Skipping(), torch.ones(2), options={"engine": "reference"})
    lines = [one.where.partition(" ")[2] for one in found.breaks]
    assert lines == ['(print("counted"))'] * 2 + ["(return x * torch.unique(x).sum())"]
    whole, within, sized = (one.reason for one in found.breaks)
    assert re.search(r"`print`.*; forward \(test_explaining.py:\d+\) runs in Python whole$", whole)
    assert whole.startswith(within)
    assert sized == "Operator `aten._unique2.default`'s output shape depends on input Tensor data"


def test_what_is_wrong_is_told_before_the_model_runs() -> None:
    def never(x: Tensor) -> Tensor:
        raise AssertionError

    with pytest.raises(ConfigError, match="unknown target 'orinn'") as raised:
        trtpack.explain(never, torch.ones(2), options={"target": "orinn"})
    assert "did you mean orin?" in raised.value.hint
