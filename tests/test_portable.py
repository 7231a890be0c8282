# SPDX-License-Identifier: Apache-2.0
"""What the part without TensorRT makes of what a model's process found."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.acceptance.runtime import portable
from tests.acceptance.runtime.row import Settings

RIGHT = {"passed": True, "failure": None, "rel_l2": 2.5e-7}


def settings() -> Settings:
    return Settings("cuda", Path("/nowhere"), seconds=100.0)


def test_a_model_that_is_right_everywhere() -> None:
    times = {"inductor": 1.5, "reference": 4.0, "eager": 3.0, "torch.compile": 1.4}
    found = {"inductor": RIGHT, "reference": RIGHT, "latency_ms": times, "seconds": 31.0}
    made = portable.row("dlrm", found)
    assert made.figures["torch.compile, ms"] == 1.4
    assert made.figures["inductor, rel. L2"] == "2.5e-07"
    assert [(bar.found, bar.holds) for bar in made.bars] == [("right", True)] * 2
    assert made.notes == ()


def test_a_missing_compiler_is_said() -> None:
    problem = "cannot compile: no C++ compiler found"
    wrong = {"passed": False, "failure": "relative L2 error 0.1", "rel_l2": 0.1}
    found = {"inductor": {"problem": problem}, "reference": wrong, "compile_problem": "no g++"}
    made = portable.row("dlrm", found)
    assert [(bar.found, bar.holds) for bar in made.bars] == [
        (problem, False),
        ("relative L2 error 0.1", False),
    ]
    assert made.notes == (
        f"dlrm was not run by inductor: {problem}.",
        "dlrm was not run by torch.compile: no g++.",
    )
    assert made.figures["inductor, ms"] == made.figures["inductor, rel. L2"] == ""


def test_a_process_that_dies_fails_its_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def died(*_: Any, **how: Any) -> SimpleNamespace:
        assert 90 < how["timeout"] < 100
        return SimpleNamespace(returncode=-11, stderr="one\n\ntwo\nthree\nfour\n", stdout="")

    monkeypatch.setattr(subprocess, "run", died)
    made = list(portable.rows(settings()))
    assert [row.name for row in made] == list(portable.MODELS)
    assert made[0].bars[0].found == "two | three | four"


def test_a_model_without_time_is_left_for_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, **how: Any) -> Any:
        raise subprocess.TimeoutExpired("python", how["timeout"])

    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(SystemExit, match="no time was left for dlrm"):
        list(portable.rows(settings()))
