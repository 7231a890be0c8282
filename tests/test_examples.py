# SPDX-License-Identifier: Apache-2.0
"""Runs every example as its page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
BESIDE = ("compare", "soft_clip", "own_converters")
"""What the examples import."""
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in BESIDE)
SAYS = {
    "classify_images": r"batch 8: the first is a \w+, (?P<off>\S+) from PyTorch",
    "detect_objects": r"image 2: 28 of 64 boxes stay, the model keeps 28; they are (?P<off>\S+)",
    "encode_text": r" 128 tokens: (?P<off>\S+) from PyTorch",
    "generate_text": r"TensorRT-RTX, 2 segments\n.*\n(after \d+ tokens .*, as the model does\n){2}",
    "denoise_images": r"after 20 steps the image is (?P<off>\S+) from PyTorch's",
    "own_operator": r"with its converter: .* 3 operators in TensorRT-RTX, 1 segment, (?P<off>\S+)",
    "divide_a_model": r"1 in \w+, 3 segments(.|\n)* 1 operator (.|\n)*\n(?P<off>\S+) from",
}
WITHIN = 1e-3


def said(name: str, target: str, folder: Path) -> str:
    """What ``python docs/examples/NAME.py`` prints in a folder.

    In a process of its own: one of them registers a converter, which stays.
    """
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), target],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_that_it_computes_what_the_model_does(name: str, tmp_path: Path) -> None:
    text = said(name, "rtx-4090", tmp_path)
    found = re.search(SAYS[name], text)
    assert found is not None, text
    if "off" in found.groupdict():
        assert float(found["off"]) < WITHIN
    assert "rtx-4090: " in text


def test_every_example_is_on_the_page() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\w+)\.py\)", page) == list(SAYS)
    assert sorted(SAYS) == NAMES
