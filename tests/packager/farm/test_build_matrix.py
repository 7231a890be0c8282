# SPDX-License-Identifier: Apache-2.0
"""``trtpack build --matrix`` and ``trtpack farm`` as a user types them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from trtpack.cli import build_matrix, matrix_view
from trtpack.cli.build import build
from trtpack.errors import ConfigError
from trtpack.farm import CellResult, EngineResult, MatrixReport, Settings, View, cluster
from trtpack.matrix import Cell, Plan
from trtpack.options import Options
from trtpack_runtime.cli import farm as farm_command
from trtpack_runtime.errors import CompileError

MATRIX = """
[build]
liven = true
[models.a]
model = "models.py:a"
[targets.cpu]
[targets.orin]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models.py").touch()
    Path("matrix.toml").write_text(MATRIX, encoding="utf-8")
    Path("bundles").mkdir()


def run(*words: str) -> Result:
    return CliRunner().invoke(build, words, catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("", "neither a MODEL nor --matrix is given"),
        ("m.py:x --matrix matrix.toml", "both m.py:x and --matrix matrix.toml are given"),
        ("--matrix matrix.toml -t cpu", "--target is for one MODEL"),
        ("--matrix matrix.toml --sparse", "--sparse is for one MODEL"),
        ("m.py:x -t cpu --farm tcp://a:1", "--farm is for --matrix"),
        ("--matrix matrix.toml --no-worker defer", "--no-worker is for --farm"),
        ("--matrix none.toml", "cannot read none.toml"),
        ("--matrix matrix.toml -o models.py", "cannot write to the folder models.py"),
        ("--matrix matrix.toml --farm http://a:1", "bad address 'http://a:1'"),
        ("--matrix matrix.toml --farm tcp://127.0.0.1:1", "no scheduler answers at tcp://127"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(words: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        run(*words.split())


def test_a_bad_matrix_is_told_with_its_place() -> None:
    Path("matrix.toml").write_text(MATRIX.replace("liven", "livn"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"matrix.toml:3:1: .*did you mean liven"):
        run("--matrix", "matrix.toml")


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    monkeypatch.setattr(farm_command, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--farm needs Dask") as error:
        run("--matrix", "matrix.toml", "--farm", "tcp://a:1")
    assert "trtpack[farm]" in error.value.hint
    for words in (["worker", "tcp://a:1"], ["scheduler"]):
        with pytest.raises(ConfigError, match="a farm needs Dask") as error:
            CliRunner().invoke(farm_command.farm, words, catch_exceptions=False)
        assert "trtpack-runtime[farm]" in error.value.hint


def finished(failures: dict[str, str]) -> MatrixReport:
    engine = EngineResult("forward_0", "inductor", 10, 12.0, worker="w2")
    cells = (
        CellResult("a-cpu", "a", "cpu", "built", nbytes=2_000_000, engines=(engine,), tries=2),
        CellResult("a-orin", "a", "orin", "failed", "it broke", "mend it", "CompileError"),
    )
    return MatrixReport("matrix.toml", "bundles", cells, failures, seconds=3.0)


def test_the_report_is_printed_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def built(
        plan: Plan, options_of: Callable[[Cell], Options], settings: Settings, view: View
    ) -> MatrixReport:
        seen.extend([settings, *(options_of(cell) for cell in plan.to_run)])
        view.begins(2)
        return finished({"a-orin": "it broke"})

    monkeypatch.setattr(build_matrix, "build_matrix", built)
    words = "--matrix matrix.toml --jobs 3 --farm tcp://a:1 --farm-timeout 5 --report r.json"
    with pytest.raises(CompileError, match="1 of 2 cells failed: a-orin") as error:
        run(*words.split())
    assert error.value.exit_code == 4
    assert seen[0] == Settings(Path("bundles"), 3, "tcp://a:1", 5.0, "fail")
    assert [options.targets for options in seen[1:]] == [("cpu",), ("orin",)]
    assert all(options.liven for options in seen[1:])
    told = json.loads(Path("bundles/report.json").read_bytes())
    assert told == json.loads(Path("r.json").read_bytes())
    assert told["schema"] == "trtpack.matrix-build/1"
    assert told["totals"]["engines_built"] == 1
    assert finished({}).to_text().splitlines() == [
        "a-cpu   built   2.0 MB  built in 12.0 s by w2, begun 2 times",
        "a-orin  failed          CompileError",
        "",
        "a-orin: it broke",
        "  mend it",
        "",
        "2 cells: 1 built, 1 failed; engines: 1 built; in 3.0 s; bundles in bundles",
    ]


def test_lines_say_where_a_cell_is() -> None:
    stream = io.StringIO()
    view = matrix_view.view_for(quiet=False, stream=stream)
    view.begins(2)
    view.at("a-orin", "here", "lower")
    view.at("a-orin", "here", "capture")
    view.waits("a-orin", "no worker of the farm has orin: waiting 3 s more for one")
    view.at("a-orin", "w2", "building forward_0")
    view.ends(finished({}).cells[0])
    view.ends(finished({}).cells[1])
    assert stream.getvalue().splitlines() == [
        "a-orin: builds here",
        "a-orin: no worker of the farm has orin",
        "a-orin: builds on w2",
        "[1/2] a-cpu: built in 0.0 s",
        "[2/2] a-orin: failed: it broke",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_row_for_each_cell() -> None:
    stream = Terminal()
    view = matrix_view.view_for(quiet=False, stream=stream)
    view.begins(2)
    view.at("a-cpu", "w2", "building [forward_0]")
    view.waits("a-orin", "queued for orin")
    view.ends(finished({}).cells[1])
    view.says("worker [w3] went away")
    view.closes()
    shown = stream.getvalue()
    assert "building [forward_0]" in shown
    assert "a-orin: failed: it broke" in shown
    assert "worker [w3] went away" in shown
    assert view.count_done() == "1 of 2 cells are done"
