# SPDX-License-Identifier: Apache-2.0
"""Where the facts of ``targets/`` were read, and when."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .files import Table

KINDS = ("vendor", "package", "measured", "secondary", "rule")
"""How far to trust a source, the best first; ``targets/sources.toml`` says what each is."""


@dataclass(frozen=True)
class Source:
    """One place: its ``kind``, its address, or what was done where it is ``measured``, and when."""

    id: str
    kind: str
    address: str
    noted: datetime.date
    note: str | None

    def __str__(self) -> str:
        word = self.address.split(" ")[0]
        return f"{word if '://' in word else self.address}, {self.noted}"


def read_sources(table: Table) -> dict[str, Source]:
    """Every source by its id.

    Errors: FileError for one without kind, address or date.
    """
    found = {}
    for id in tuple(table.content):
        part = table.part(id)
        found[id] = Source(
            id=id,
            kind=part.take("kind", KINDS.__contains__, f"one of {', '.join(KINDS)}"),
            address=part.text("address"),
            noted=part.take("noted", lambda v: isinstance(v, datetime.date), "a date"),
            note=part.text_or_none("note"),
        )
        part.finish(None, ())
    table.refuse()
    return found


def cite(ids: Iterable[str], sources: Mapping[str, Source]) -> str:
    """``source: ADDRESS, DATE`` of the best of ``ids``; a user's own words as they are."""
    known = [sources[id] for id in ids if id in sources]
    best = min(known, key=lambda source: KINDS.index(source.kind), default=None)
    return f"source: {best if best is not None else ', '.join(ids) or 'none is given'}"
