# SPDX-License-Identifier: Apache-2.0
"""A farm that is ended with its test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .cluster import Farm


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    pytest.importorskip("distributed")
    made = Farm(tmp_path)
    try:
        yield made
    finally:
        made.end()
