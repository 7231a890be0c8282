# SPDX-License-Identifier: Apache-2.0
"""Does what docs/how-to/build-on-a-farm.md says, in an empty folder, on a farm of this machine."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs/how-to/build-on-a-farm.md").read_text("utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
COMMANDS = [
    shlex.split(text.strip().removeprefix("$ trtpack "))
    for kind, text in BLOCK.findall(PAGE)
    if kind == "console"
]


def lines_without_figures(text: str) -> list[str]:
    """Sizes and times differ from machine to machine, and the width of their columns."""
    plain = re.sub(r"\d+\.\d+ (s|[kM]?B)", "N", text)
    return [" ".join(line.split()) for line in plain.splitlines()]


@pytest.mark.slow
def test_the_page(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    farm_of = pytest.importorskip("tests.packager.farm.cluster").Farm
    for kind, text in BLOCK.findall(PAGE):
        if kind in ("python", "toml"):
            (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
    alone, scheduler, worker, named, build = COMMANDS
    assert scheduler == ["farm", "scheduler"]
    farm = farm_of(tmp_path)
    try:
        running = farm.run(*alone)
        assert running.process.wait(600) == 0, running.seen
        assert running.process.stdout is not None
        (shown,) = (text for kind, text in BLOCK.findall(PAGE) if kind == "text")
        assert lines_without_figures(running.process.stdout.read()) == lines_without_figures(shown)
        for words in (worker, named):
            assert words[:3] == ["farm", "worker", "tcp://10.0.0.5:8786"]
            farm.add(words[4], *words[5:])
        told = [farm.address if word == "tcp://10.0.0.5:8786" else word for word in build]
        running = farm.run(*told, cache="fresh")
        assert running.process.wait(600) == 0, running.seen
    finally:
        farm.end()
    report = json.loads((tmp_path / "bundles/report.json").read_bytes())
    assert {
        cell["cell"]: [engine["worker"] for engine in cell["engines"]] for cell in report["cells"]
    } == {
        "head-rtx-4090": ["rack-1"],
        "head-orin": ["here"],
        "stem-rtx-4090": ["rack-1"],
        "stem-orin": ["here"],
    }
    assert any("rack-2 has orin but is not asked" in note for note in report["notes"])
