# SPDX-License-Identifier: Apache-2.0
"""Does what docs/how-to/build-several-methods.md says, in an empty folder."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from trtpack_runtime.cli import trtpack

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "build-several-methods.md"
BLOCK = re.compile(r"```(python|console)\n(.*?)```", re.DOTALL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::trtpack_runtime.loading.DegradedWarning")  # there is no GPU
def test_the_page_on_several_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    said = {}
    for language, text in BLOCK.findall(PAGE.read_text("utf-8")):
        if text.startswith("# counter.py"):
            Path("counter.py").write_text(text, encoding="utf-8")
        elif language == "python":
            exec(text, names)  # it is this repository's own
        else:
            for line in text.splitlines():
                verb, *words = shlex.split(line.removeprefix("$ trtpack "))
                result = CliRunner().invoke(trtpack, [verb, *words], catch_exceptions=False)
                assert result.exit_code == 0, result.output
                said[verb] = result.output
    sys.modules.pop("counter")
    for verb in ("build", "explain"):
        assert "Method tell\n  input   rows    float32  1/2/8x4" in said[verb]
        assert re.search(r"ask_0 +TensorRT", said[verb])
    assert "outputs = model.tell(" in said["build"]
    assert "ask-0" in said["run"]
    with torch.no_grad():
        total = names["model"].tell(torch.ones(3, 4)).sum(0)
    torch.testing.assert_close(names["asked"], total)
