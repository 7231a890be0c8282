# SPDX-License-Identifier: Apache-2.0
"""What the shell is offered as a user types ``trtpack build``; ``file``: the shell's own names."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("build -t rtx-4", ["plain,rtx-4090"]),
        ("build -t thor", ["plain,thor"]),
        ("build -t nat", ["plain,native"]),
        ("build --dtype fl", ["plain,float32", "plain,float16"]),
        ("build mod", ["file,mod"]),
        ("build torchv", ["plain,torchvision:", "file,torchv"]),
        ("build --weights w", ["file,w"]),
        ("build -o b", ["file,b"]),
        ("explain --report r", ["file,r"]),
        ("targets sh", ["plain,show"]),
    ],
)
def test_completion(typed: str, offered: list[str]) -> None:
    words = f"trtpack {typed}"
    asked = {
        "_TRTPACK_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "trtpack_runtime"],
        capture_output=True,
        text=True,
        env={**os.environ, **asked},
        check=True,
    )
    assert done.stdout.splitlines() == offered
