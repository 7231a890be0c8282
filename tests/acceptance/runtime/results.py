# SPDX-License-Identifier: Apache-2.0
"""The results of every part, in one file that a run takes up again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.runtime.row import Row


@dataclass
class Part:
    """What is known of a part; it is ``whole`` once its process came to its end."""

    title: str = ""
    rows: dict[str, Row] = field(default_factory=dict)
    whole: bool = False
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether all was measured and every demand holds."""
        bars = [bar for row in self.rows.values() for bar in row.bars]
        return self.whole and not self.error and all(bar.holds for bar in bars)

    def take(self, lines: Iterable[str]) -> None:
        """Adds what a part's process wrote; a last line that was cut off is left out."""
        for line in lines:
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if told is None:
                self.whole = True
            elif "title" in told:
                self.title = told["title"]
            else:
                self.rows[told["name"]] = Row.from_json(told)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        rows = [row.to_json() for row in self.rows.values()]
        return {"title": self.title, "rows": rows, "whole": self.whole, "error": self.error}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Part:
        """What ``to_json`` answered."""
        rows = {row["name"]: Row.from_json(row) for row in told["rows"]}
        return cls(told["title"], rows, told["whole"], told["error"])


@dataclass
class Results:
    """Every part by name, and the machine they were measured on."""

    machine: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "machine": self.machine,
            "parts": {name: part.to_json() for name, part in self.parts.items()},
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Results:
        """What ``to_json`` answered."""
        parts = {name: Part.from_json(part) for name, part in told["parts"].items()}
        return cls(told["machine"], parts)

    @classmethod
    def read(cls, path: Path) -> Results:
        """The results in a file; none where there is no such file."""
        try:
            return cls.from_json(json.loads(path.read_text()))
        except FileNotFoundError:
            return cls()

    def write(self, path: Path) -> None:
        """Writes the file at once, so that an ended run leaves the old one or the new one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n")
        fresh.replace(path)
