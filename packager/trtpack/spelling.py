# SPDX-License-Identifier: Apache-2.0
"""Names in what people read: the one that somebody may have meant, the first of many."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence


def nearest(name: str, known: Collection[str]) -> str:
    """The closest of ``known``, one that begins as ``name`` does if possible; else empty."""
    same_start = sorted((k for k in known if k.startswith(name)), key=lambda k: (len(k), k))
    if same_start and name:
        return same_start[0]

    def likeness(candidate: str) -> float:
        same = [a == b for a, b in zip(name, candidate, strict=False)]
        start = (*same, False).index(False) / len(name)
        return start + difflib.SequenceMatcher(None, name, candidate).ratio()

    close = difflib.get_close_matches(name, known, n=max(len(known), 1), cutoff=0.5)
    return max(close, key=likeness, default="")


def first_of(names: Sequence[str], most: int) -> str:
    """``a, b and 3 more``; at most so many are named."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
