# SPDX-License-Identifier: Apache-2.0
"""A user's model file, for the tests of sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from .loading import CODE


@pytest.fixture
def code(tmp_path: Path) -> str:
    path = tmp_path / "mymodel.py"
    path.write_text(CODE)
    return str(path)
