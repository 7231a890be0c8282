# SPDX-License-Identifier: Apache-2.0
"""Plain text for people: sizes, shapes and aligned columns."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

from ..dims import Dim

_NARROWEST = 24
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
    """``1x3x224``, ``[x.0]x3`` with an expression; ``?`` where only the data tells; ``scalar``."""
    return "x".join(map(_dim, sizes)) or "scalar"


def columns(rows: Iterable[Sequence[str]], indent: int = 2) -> str:
    """Rows with their cells aligned, the last one wrapped; no spaces at the ends of lines."""
    table = [list(map(clean, row)) for row in rows]
    count = max(map(len, table), default=0)
    widths = [max((len(row[i]) for row in table if i < len(row) - 1), default=0)
              for i in range(count)]  # fmt: skip
    lines = []
    for row in table:
        start = " " * indent + "".join(
            cell.ljust(w) + "  " for cell, w in zip(row[:-1], widths, strict=False)
        )
        lines.append(wrapped("".join(row[-1:]), first=start, rest=" " * len(start)).rstrip())
    return "\n".join(lines)


def fitted(rows: Iterable[Sequence[str]], dropping: Sequence[int]) -> str:
    """``columns``, on a narrow terminal without those of ``dropping``, from its first on."""
    table = [list(row) for row in rows]
    for count in range(len(dropping) + 1):
        gone = dropping[:count]
        text = columns([cell for i, cell in enumerate(row) if i not in gone] for row in table)
        if max(map(len, text.splitlines()), default=0) <= _width():
            break
    return text


def wrapped(text: str, first: str = "", rest: str = "") -> str:
    """``text`` after ``first``, broken at the terminal's width, further lines after ``rest``.

    Left whole where there is no terminal, and where the lines would be very short.
    """
    room = _width() - len(rest)
    if len(first) + len(text) <= _width() or room < _NARROWEST:
        return first + text
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    return first + f"\n{rest}".join(lines)


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


def _width() -> int:
    if "COLUMNS" in os.environ or sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return sys.maxsize


def _dim(value: Dim | None) -> str:
    if value is None:
        return "?"
    return str(value) if isinstance(value, int) else f"[{value}]"
