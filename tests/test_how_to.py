# SPDX-License-Identifier: Apache-2.0
"""Does what docs/how-to says, in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests.runtime import chains
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
