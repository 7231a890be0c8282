# SPDX-License-Identifier: Apache-2.0
"""Does what docs/how-to/bring-a-quantized-model.md says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from trtpack.cli.explain import explain

PAGE = Path(__file__).parents[3] / "docs/how-to/bring-a-quantized-model.md"


@pytest.mark.slow
def test_a_model_that_is_quantized_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text("utf-8")
    (source,) = re.findall(r"```python\n# model\.py\n(.*?)```", text, re.DOTALL)
    (line,) = re.findall(r"\$ trtpack explain (.*)\n", text)
    Path("model.py").write_text(source, encoding="utf-8")
    told = CliRunner().invoke(explain, shlex.split(line), catch_exceptions=False).output
    assert "Unsupported operators: none" in told
    assert "2 trtpack.fake_quantize.default" in told
    assert "2 trtpack.dequantize.default" in told
    assert "batch_norm" not in told
