# SPDX-License-Identifier: Apache-2.0
"""Does what docs/tutorial.md says, in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```(python|console)\n(.*?)```", TUTORIAL.read_text("utf-8"), re.DOTALL)
    model, *rest = blocks
    assert model[1].startswith("# model.py\n")
    (tmp_path / "model.py").write_text(model[1], encoding="utf-8")
    printed = []
    for language, text in rest:
        if language == "python":
            printed.append(run([sys.executable, "-W", "ignore", "-c", text], tmp_path))
            continue
        for line in text.splitlines():
            assert line.startswith("$ trtpack ")
            words = shlex.split(line.removeprefix("$ trtpack "))
            printed.append(run([sys.executable, "-m", "trtpack_runtime", *words], tmp_path))
    plan, built, _, shown, _, ran, used = printed
    assert "TensorRT has no type complex64" in plan
    assert "model.py:" in plan
    assert "deferred" in built
    assert "orin" in shown
    assert "passed" in ran
    assert used.strip() == "torch.Size([1, 10])"
    assert (tmp_path / "report.xml").exists()


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
