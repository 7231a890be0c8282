# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 through the module and a graph beside the bare graph."""

from __future__ import annotations

from collections.abc import Iterator

from tests.acceptance.runtime.row import Row, Settings

TITLE = "ResNet-18, batch 1"


def rows(settings: Settings) -> Iterator[Row]:
    """The row."""
    yield from ()
