# SPDX-License-Identifier: Apache-2.0
"""Does what docs/how-to says, in an empty folder."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests.runtime import chains
from tests.runtime.command import trtpack
from trtpack.cli.explain import explain
from trtpack.converters import extensions, load, registry

HOW_TO = Path(__file__).parents[1] / "docs" / "how-to"
BLOCK = re.compile(r"```(python|console)\n(.*?)```", re.DOTALL)


def test_a_converter_of_ones_own_takes_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    known = dict(registry._REGISTRY)
    monkeypatch.setattr(extensions, "_loaded", set())
    monkeypatch.chdir(tmp_path)
    plans = []
    for language, text in BLOCK.findall((HOW_TO / "add-a-converter.md").read_text("utf-8")):
        if language == "python":
            name = text.splitlines()[0].removeprefix("# ")
            Path(name).write_text(text, encoding="utf-8")
            continue
        (line,) = text.splitlines()
        monkeypatch.setattr(registry, "_REGISTRY", dict(known))
        words = shlex.split(line.removeprefix("$ trtpack explain "))
        result = CliRunner().invoke(explain, words, catch_exceptions=False)
        plans.append(result.output)
    assert len(plans) == 2
    for plan in plans:
        assert "TensorRT  2 operators" in plan
        assert "PyTorch  " not in plan


def commands(page: str) -> list[list[str]]:
    """The words of a page's commands."""
    blocks = BLOCK.findall((HOW_TO / page).read_text("utf-8"))
    lines = [line for language, text in blocks for line in text.splitlines()]
    return [shlex.split(line.removeprefix("$ trtpack ")) for line in lines]


@pytest.mark.slow
def test_a_batch_size_is_chosen_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chains.write(tmp_path / "bundle.tar")
    monkeypatch.chdir(tmp_path)
    first, second = (
        trtpack(*words, "--repeats", "3") for words in commands("choose-a-batch-size.md")
    )
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "<- knee" in first.out
    assert "build with" in first.out
    assert (tmp_path / "sweep.svg").stat().st_size > 1000
    assert json.loads(second.out)["dim"] == "x0:0"


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.first(x).relu().mean((2, 3)).cumsum(1).sigmoid())

def model():
    return Net().eval(), (torch.randn(2, 3, 8, 8),)
"""


@pytest.mark.slow
def test_what_stays_in_pytorch_is_left_to_be_compiled_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    built, ran = (trtpack(*words) for words in commands("compile-what-stays-in-pytorch.md"))
    assert built.code == 0, built.err
    assert "not compiled on this host" in built.out
    assert "smoke test" in ran.out


def test_the_converter_takes_ten_lines() -> None:
    text = (HOW_TO / "add-a-converter.md").read_text("utf-8")
    (source,) = (t for _, t in BLOCK.findall(text) if t.startswith("# my_converters.py"))
    assert len(source.splitlines()) <= 10


def test_a_bundle_is_called_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chains.write(tmp_path / "bundle.tar", 2, 2)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = BLOCK.findall((HOW_TO / "call-a-bundle.md").read_text("utf-8"))
    for language, text in blocks:
        assert language == "python"
        exec(text, names)  # it is this repository's own
    assert torch.equal(names["answer"], torch.full((2, 4), 8.0))
    assert torch.equal(names["out"][0], names["answer"])
