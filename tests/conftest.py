# SPDX-License-Identifier: Apache-2.0
"""Lets the runtime's tests run where there is no torch, as on a device's bare Python."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

_NEEDS_TORCH = re.compile(r"^(?:from|import) (?:torch|trtpack)\b", re.MULTILINE)
_HAS_TORCH = importlib.util.find_spec("torch") is not None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out test files that import torch or the packager at their top, if there is no torch."""
    if _HAS_TORCH or not collection_path.match("test_*.py"):
        return None
    return bool(_NEEDS_TORCH.search(collection_path.read_text(encoding="utf-8"))) or None
