# SPDX-License-Identifier: Apache-2.0
"""What somebody may have meant who wrote a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Collection


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
