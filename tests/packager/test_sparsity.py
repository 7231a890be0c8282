# SPDX-License-Identifier: Apache-2.0
"""Weights of which half are zero: found, made, and told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import trtpack
from tests.packager.calibration.models import answer, captured_of, residual
from trtpack.accuracy.reading import parse_budget
from trtpack.capture import constant_of
from trtpack.errors import AccuracyError
from trtpack.lowering import Lowered, lower
from trtpack.sparsity import is_sparse, sparsities
from trtpack_runtime.recipes import replay


def pruned(module: nn.Module, args: tuple[torch.Tensor, ...]) -> Lowered:
    return lower(captured_of(module, args), pruned=True)


def missing(lowered: Lowered) -> dict[str, str]:
    return {one.node: one.why for one in sparsities(lowered.captured.graph_module.graph)}


class Odd(nn.Module):
    """Weights that cannot be sparse, beside one that can."""

    def __init__(self) -> None:
        super().__init__()
        self.few = nn.Conv2d(3, 8, 3)
        self.groups = nn.Conv2d(8, 8, 3, groups=2)
        self.up = nn.ConvTranspose2d(8, 8, 2)
        self.matrix = nn.Parameter(torch.randn(8, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.groups(self.few(x))).mean((2, 3))
        made: torch.Tensor = x @ self.matrix
        return made


def test_pruning_keeps_the_two_largest_of_four() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -4, 2, 3, 0, 0, 0, 5], [1, 1, 1, 1, -2, 1, 2, 0]]))
    lowered = pruned(layer.eval(), (torch.randn(1, 8),))
    (node,) = (n for n in lowered.captured.graph_module.graph.nodes if "2to4" in str(n.target))
    found = constant_of(node)
    assert found is not None
    assert found.tolist() == [[0, -4, 0, 3, 0, 0, 0, 5], [1, 1, 0, 0, -2, 0, 2, 0]]


def test_convolutions_are_pruned_along_their_input_channels() -> None:
    module, args = residual()
    lowered = pruned(module, args)
    assert lowered.effects["prune"] == 4
    assert missing(lowered) == {
        "convolution": "its 3 input channels are no multiple of 4",
        "convolution_1": "",
        "convolution_2": "",
        "convolution_3": "",
        "linear": "",
    }
    stored = {name: value.detach() for name, value in module.state_dict().items()}
    name = "second|weight_2to4"
    stored["second.weight"] = torch.randn(16, 16, 3, 3)
    again = replay(dict(lowered.recipes[name]), stored)
    assert is_sparse(again, 1)
    assert not is_sparse(again, 0)


def test_what_cannot_be_sparse_is_left_and_named() -> None:
    torch.manual_seed(0)
    lowered = pruned(Odd().eval(), (torch.randn(1, 3, 8, 8),))
    groups = "its channels are in groups, or it is transposed"
    assert list(missing(lowered).values()) == [
        "its 3 input channels are no multiple of 4", groups, groups, "",
    ]  # fmt: skip
    assert lowered.effects["prune"] == 1


def test_weights_that_are_sparse_already_stay(tmp_path: Path) -> None:
    module, args = residual()
    first = pruned(module, args)
    with torch.no_grad():
        for node in first.captured.graph_module.graph.nodes:
            value = constant_of(node)
            if value is not None and "2to4" in str(node.target):
                name = str(node.target).split("|")[0]
                module.get_submodule(name).weight.copy_(value)
    second = pruned(module, args)
    assert second.effects["prune"] == 0
    assert list(missing(second).values()).count("") == 4
    torch.testing.assert_close(answer(second, args), answer(first, args))


def test_the_report_tells_who_can_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = trtpack.Options(
        targets=("rtx-4090", "t4"),
        output=tmp_path / "s.tar",
        sparse=True,
        prune="2:4",
        precision="mixed",
        budgets=(parse_budget("cosine>=0.5"),),
    )
    text = trtpack.build(residual(), options=options).report.to_text()
    assert "Sparsity 2:4: 4 of 5 weights, 4 of them pruned" in text
    assert "  sparse: second, third, fourth, head" in text
    assert "1 not: its 3 input channels are no multiple of 4 (first)" in text
    assert "t4 cannot use it: SM 7.5 has no sparse tensor cores" in text
    assert "in a type" not in text
    dense = trtpack.Options(targets=("rtx-4090",), sparse=True, dry_run=True)
    text = trtpack.build(residual(), options=dense).report.to_text()
    assert "Sparsity 2:4: 0 of 5 weights" in text
    assert "0% of its groups of four have two zeros" in text


def test_pruning_is_held_to_a_budget(tmp_path: Path) -> None:
    options = trtpack.Options(
        targets=("cpu",),
        output=tmp_path / "s.tar",
        engine="reference",
        prune="2:4",
        budgets=(parse_budget("cosine>=0.9999"),),
    )
    with pytest.raises(AccuracyError, match="pruning 2:4 misses its budget") as caught:
        trtpack.build(residual(), options=options)
    assert caught.value.hint is not None
    assert "train the model on with these zeros" in caught.value.hint
    assert not (tmp_path / "s.tar").exists()


def test_pruning_alone_is_tolerated_by_the_golden_samples(tmp_path: Path) -> None:
    options = trtpack.Options(
        targets=("cpu",),
        output=tmp_path / "s.tar",
        engine="reference",
        prune="2:4",
        budgets=(parse_budget("cosine>=0.8"),),
    )
    found = trtpack.build(residual(), options=options).load(trust=True).smoke()
    found.raise_for_failure()
    assert 0.8 < found.comparisons[0].metrics.cosine < 0.9999
