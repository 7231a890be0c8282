# SPDX-License-Identifier: Apache-2.0
"""Does what docs/how-to/compile-as-it-runs.md says."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs/how-to/compile-as-it-runs.md"


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    file = tmp_path / "page.py"  # Dynamo and the model's breaks name a file's lines
    file.write_text("\n".join(blocks), encoding="utf-8")
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        exec(compile(file.read_text("utf-8"), str(file), "exec"), {"__name__": "page"})
    printed = capsys.readouterr().out
    torch.compiler.reset()
    assert printed.startswith("2 graphs for Jetson AGX Orin 64GB, 1 graph break\n")
    assert "forward_0: tensorrt, 4 operators: linear.default x1, relu.default x1" in printed
