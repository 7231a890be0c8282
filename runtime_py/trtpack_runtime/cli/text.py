# SPDX-License-Identifier: Apache-2.0
"""Plain text for people: sizes, shapes and aligned columns."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from ..dims import Dim

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def size(count: int) -> str:
    """``44.9 MB`` of 44900000; units of a thousand."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    if unit == 0:
        return f"{count} bytes" if count != 1 else "1 byte"
    return f"{value:.3g} {_UNITS[unit]}" if value < 99.95 else f"{value:.0f} {_UNITS[unit]}"


def plural(count: int, noun: str) -> str:
    """``1 segment``, ``2 segments``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shape(sizes: Sequence[Dim | None]) -> str:
    """``1x3x224x224``; ``?`` where only the data tells, ``scalar`` without dims."""
    return "x".join("?" if d is None else _dim(d) for d in sizes) or "scalar"


def columns(rows: Iterable[Sequence[str]], indent: int = 2) -> str:
    """Rows with their cells aligned, the last one free; no spaces at the ends of lines."""
    table = [list(map(clean, row)) for row in rows]
    count = max(map(len, table), default=0)
    widths = [max((len(row[i]) for row in table if i < len(row) - 1), default=0)
              for i in range(count)]  # fmt: skip
    lines = (
        " " * indent + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=False))
        for row in table
    )
    return "\n".join(line.rstrip() for line in lines)


def clean(text: str) -> str:
    """Text from a file, safe to print: control characters become ``?``."""
    return "".join(c if c.isprintable() else "?" for c in text)


def mark(good: bool | None) -> str:
    """A tick, a cross, or a dot for what is merely noted; letters where they cannot be shown."""
    signs = {True: "✓", False: "✗", None: "·"}
    try:
        signs[good].encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return {True: "+", False: "x", None: "-"}[good]
    return signs[good]


def _dim(value: Dim) -> str:
    text = str(value)
    return text if isinstance(value, int) or " " not in text else f"({text})"
