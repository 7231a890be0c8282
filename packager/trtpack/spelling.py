# SPDX-License-Identifier: Apache-2.0
"""Names in what people read: the one that somebody may have meant, as the runtime says it, and the
first of many."""

from __future__ import annotations

from collections.abc import Sequence

from trtpack_runtime.spelling import nearest as nearest


def first_of(names: Sequence[str], most: int) -> str:
    """``a, b and 3 more``; at most so many are named."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
