# SPDX-License-Identifier: Apache-2.0
"""What a part is told and what it answers, both as plain values that go through JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tests.acceptance.table import Bar

Figure: TypeAlias = float | int | str


@dataclass(frozen=True)
class Row:
    """One line of a part's table.

    ``figures`` are the columns by name, each with its unit in the name ("call, µs"); rows of a part
    may have different ones. ``bars`` are the demands that this row answers. ``notes`` are sentences
    below the table: what is left, or why something is not measured.
    """

    name: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    bars: tuple[Bar, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Row:
        """What ``to_json`` answered."""
        bars = tuple(Bar(**bar) for bar in told["bars"])
        return cls(told["name"], dict(told["figures"]), bars, tuple(told["notes"]))


@dataclass(frozen=True)
class Settings:
    """How a part is to run.

    Args:
        device: ``cuda``, or ``cpu`` for the parts that can show something there.
        folder: the part's own folder; what it leaves there is there again at the next run.
        done: names of the rows that have a result already.
        seconds: how long the part has; the process is ended then, and goes on at the next run.
        quick: few repeats, to see that it runs; such figures are not for the page.
        profile: also print what Python spends its time on, where the part can tell.
    """

    device: str
    folder: Path
    done: frozenset[str] = frozenset()
    seconds: float = 540.0
    quick: bool = False
    profile: bool = False
    began: float = field(default_factory=time.monotonic)

    def wants(self, name: str) -> bool:
        """Whether a row has no result yet."""
        return name not in self.done

    @property
    def left_s(self) -> float:
        """Seconds until the process is ended."""
        return self.began + self.seconds - time.monotonic()

    def to_json(self) -> dict[str, Any]:
        """As plain values; the clock begins anew on the other side."""
        return {
            "device": self.device,
            "folder": str(self.folder),
            "done": sorted(self.done),
            "seconds": self.seconds,
            "quick": self.quick,
            "profile": self.profile,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Settings:
        """What ``to_json`` answered."""
        known = {**told, "folder": Path(told["folder"]), "done": frozenset(told["done"])}
        return cls(**known)


def at_most(what: str, found: float, limit: float, unit: str) -> Bar:
    """The demand that a figure is no larger than a limit, both in ``unit``."""
    return Bar(f"{what} <= {limit:g} {unit}", f"{found:.2f} {unit}", found <= limit)
