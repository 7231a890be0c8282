# SPDX-License-Identifier: Apache-2.0
"""What a call costs over the bare engine enqueue."""

from __future__ import annotations

from collections.abc import Iterator

from tests.acceptance.runtime.row import Row, Settings

TITLE = "Overhead of a call"


def rows(settings: Settings) -> Iterator[Row]:
    """A row for each tiny engine."""
    yield from ()
