# SPDX-License-Identifier: Apache-2.0
"""Does what docs/how-to/build-a-matrix.md says, in an empty folder."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trtpack.cli.matrix import matrix
from trtpack.cli.targets import targets
from trtpack.target import NEEDS, check_need

PAGE = (Path(__file__).parents[1] / "docs/how-to/build-a-matrix.md").read_text("utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page, and the reports of a run in which all passed."""
    monkeypatch.chdir(tmp_path)
    for language, text in BLOCK.findall(PAGE):
        if language == "toml":
            (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
    for cell in ("resnet18-orin", "resnet18-old-orin", "resnet18-robot", "resnet18-dla"):
        (tmp_path / "results" / cell).mkdir(parents=True)
        (tmp_path / "results" / cell / "build.json").write_text("{}")
        (tmp_path / "results" / cell / "run.json").write_text('{"passed": true}')
    return tmp_path


def call(line: str) -> Result:
    verb, *words = shlex.split(line.removeprefix("$ trtpack "))
    command = {"matrix": matrix, "targets": targets}[verb]
    return CliRunner().invoke(command, words, catch_exceptions=False)


def test_the_commands_of_the_page(folder: Path) -> None:
    lines = [
        line
        for kind, text in BLOCK.findall(PAGE)
        if kind == "console"
        for line in text.splitlines()
    ]
    assert len(lines) == 5
    for line in lines:
        result = call(line)
        assert result.exit_code == 0, line
        if "--format json" in line:
            (folder / "plan.json").write_text(result.stdout)
        if "--since" in line:
            states = {words.split()[1] for words in result.stdout.splitlines()}
            assert states == {"unchanged", "impossible", "excluded"}
        if "--results" in line:
            assert "resnet18-old-orin: passes, though expected to fail" in result.stderr


def test_the_cells_of_the_page(folder: Path) -> None:
    (shown,) = (text for kind, text in BLOCK.findall(PAGE) if kind == "text")
    assert call("$ trtpack matrix matrix.toml").stdout == shown


def test_the_cells_for_ci(folder: Path) -> None:
    plan = json.loads(call("$ trtpack matrix matrix.toml --format json").stdout)
    cells = {cell["cell"]: cell for cell in plan["cells"]}
    assert cells["resnet18-orin"]["build_arguments"] == ["--liven", "--dtype=float16"]
    assert cells["resnet18-dla"]["build_arguments"][-1] == "--dla-core=0"
    assert cells["resnet18-robot"]["asked"] == "robot.toml"
    assert "runner" not in cells["resnet18-robot"]


def test_the_needs_of_the_page() -> None:
    (told,) = re.findall(r"needs = .*# (.*) \(GiB\)", PAGE)
    assert tuple(told.split(", ")) == NEEDS
    assert [check_need(need) for need in NEEDS] == [None] * len(NEEDS)
