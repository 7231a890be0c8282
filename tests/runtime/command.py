# SPDX-License-Identifier: Apache-2.0
"""Runs the command line as a user does, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


def trtpack(*arguments: str | Path, env: dict[str, str] | None = None) -> Outcome:
    """``trtpack ARGUMENTS``; a wide terminal, no colours."""
    done = subprocess.run(
        [sys.executable, "-m", "trtpack_runtime", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120", "PYTHONIOENCODING": "utf-8", **(env or {})},
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
