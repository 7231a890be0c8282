# SPDX-License-Identifier: Apache-2.0
"""docs/how-to/run-in-a-container.md and docker/README.md say what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.packager.containers.bundles import write
from tests.test_docker_images import IMAGES, inherited
from trtpack.cli.docker import docker
from trtpack.containers import dockerfile, recipe_for
from trtpack_runtime import ledger

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/how-to/run-in-a-container.md").read_text("utf-8")
README = (ROOT / "docker/README.md").read_text("utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the page's bundle, built on this machine."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    ledger.record(write(tmp_path / "resnet18.tar", "cpu", "orin", name="resnet18"))
    return tmp_path


def test_the_commands_print_what_the_page_shows(folder: Path) -> None:
    blocks = BLOCK.findall(PAGE)
    assert [kind for kind, _ in blocks] == ["console", "text"] * 2
    for (_, line), (_, shown) in zip(blocks[::2], blocks[1::2], strict=True):
        words = shlex.split(line.removeprefix("$ trtpack docker "))
        result = CliRunner().invoke(docker, words, catch_exceptions=False)
        assert result.stdout == shown


def test_every_verb_and_option_of_the_page_is_there(folder: Path) -> None:
    lines = re.findall(r"^    trtpack docker (.*?)(?:  +#.*)?$", PAGE, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        verb, *words = shlex.split(line)
        if verb not in docker.commands:
            verb, words = "context", [verb, *words]
        with docker.commands[verb].make_context(verb, words) as context:
            assert context.params["bundle"] == Path("resnet18.tar")


def test_what_the_page_says_of_an_image_holds(folder: Path) -> None:
    text = dockerfile(recipe_for(folder / "resnet18.tar", variant="orin"))
    said = {
        "/var/cache/trtpack": "trtpack /var/cache/trtpack",
        "group `video`": "--groups video",
        "10001": "USER 10001:10001",
        "trtpack run /bundle/bundle.tar": '"trtpack", "run", "/bundle/bundle.tar"',
        "BASE=debian@sha256": "ARG BASE=",
    }
    for told, written in said.items():
        assert told in PAGE
        assert written in text


@pytest.mark.parametrize("name", IMAGES)
def test_the_readme_has_every_image_with_its_base(name: str) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith(f"| `{name}` |")]
    told = inherited(name)["args"]
    base = told.get("BASE") or told.get("NGC_BASE") or told["CPU_BASE"]
    assert base in row or row.endswith("| the same |")
