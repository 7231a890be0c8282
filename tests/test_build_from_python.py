# SPDX-License-Identifier: Apache-2.0
"""Does what docs/how-to/build-from-python.md says, in an empty folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[1] / "docs/how-to/build-from-python.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ELSEWHERE = """
import sys, torch, trtpack_runtime.tracing
x = torch.load("x.pt")
for program in (torch.export.load("exported.pt2").module(), torch.jit.load("traced.pt")):
    assert torch.equal(program(x), torch.load("y.pt"))
assert "trtpack" not in sys.modules
"""


@pytest.mark.slow
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert len(BLOCKS) == 8
    for block in BLOCKS:
        if "load_state_dict" in block:
            before = names["kept"](names["x"])
        exec(block, names)  # it is this repository's own
    names["torch"].save(names["x"], "x.pt")
    names["torch"].save(before, "y.pt")
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
