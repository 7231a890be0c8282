# SPDX-License-Identifier: Apache-2.0
"""What the documents point at exists, and what they name in code can be called."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from pathlib import Path

import click
import pytest

from trtpack_runtime.cli import trtpack

ROOT = Path(__file__).parents[1]
TRACKED = [
    Path(name)
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
]
DOCUMENTS = [ROOT / path for path in TRACKED if path.suffix == ".md"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_named_scripts_exist(document: Path) -> None:
    for name in re.findall(r"(?<![\w/])(?:scripts|\.ci)/[\w.-]*\w", document.read_text("utf-8")):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_blocks_parse_and_name_what_exists(document: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", document.read_text("utf-8"), re.DOTALL):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(ast.Name("trtpack" | "trtpack_runtime" as package), name):
                    assert hasattr(importlib.import_module(package), name), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_have_the_options_that_they_are_shown_with(document: Path) -> None:
    shown = re.findall(r"^(?: +|\$ )trtpack ([a-z][a-z-]*)(.*)", document.read_text("utf-8"), re.M)
    for verb, rest in shown:
        command: click.Command | None = trtpack.get_command(click.Context(trtpack), verb)
        assert command is not None, verb
        for word in rest.split("#")[0].split(";")[0].split():
            if isinstance(command, click.Group) and word in command.commands:
                command = command.commands[word]
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        used = re.findall(r"(?<!\S)(--[a-z][a-z-]*)", rest.split("#")[0].split(" trtpack ")[0])
        assert set(used) <= known, verb


def test_the_tree_in_the_architecture_is_the_tree() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    named = re.findall(
        r"(?<![\w.])[\w.]+(?:\.py\b|/)", text.split("## The tree")[1].split("```")[1]
    )
    present = {path.name for path in TRACKED}
    present |= {f"{parent.name}/" for path in TRACKED for parent in path.parents}
    assert not set(named) - present
