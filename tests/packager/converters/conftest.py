# SPDX-License-Identifier: Apache-2.0
"""The ``check`` fixture of the converter tests."""

from __future__ import annotations

import pytest

from tests.packager.converters.harness import Checker


@pytest.fixture(scope="session")
def check() -> Checker:
    """Runs every proof on a ``Case``."""
    return Checker()
