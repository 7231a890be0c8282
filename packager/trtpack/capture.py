# SPDX-License-Identifier: Apache-2.0
"""Captures a module as a functional ATen graph with named parameters and explicit state."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class SizeRange:
    """The sizes one dynamic dimension takes: minimum, optimum, maximum."""

    minimum: int
    optimum: int
    maximum: int

    @property
    def values(self) -> tuple[int, int, int]:
        """(minimum, optimum, maximum)."""
        return self.minimum, self.optimum, self.maximum


_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_LIBRARIES = ("/torch/", "/torchvision/ops/misc")


def user_line(stack_trace: str) -> str:
    """``file.py:12`` of the innermost frame outside torch; empty where there is none."""
    frames = [m for m in _FRAME.finditer(stack_trace) if not _in_library(m["file"])]
    if not frames:
        return ""
    return f"{frames[-1]['file'].rsplit('/', 1)[-1]}:{frames[-1]['line']}"


def _in_library(file: str) -> bool:
    return any(part in file for part in _LIBRARIES)
