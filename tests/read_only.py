# SPDX-License-Identifier: Apache-2.0
"""Folders that cannot be written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mounts a folder read-only, which root may not write then either; the test is skipped where
    nothing may be mounted, as only root may."""
    mount = ["mount", "-o", "bind,ro", folder, folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a folder here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
