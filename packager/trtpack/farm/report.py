# SPDX-License-Identifier: Apache-2.0
"""What became of the cells of a matrix: for people, and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trtpack_runtime.durations import ago

from ..report.text import WIDTH, seconds_text, size_text

SCHEMA = "trtpack.matrix-build/1"
HERE = "here"
"""What stands in the place of a worker's name for this host."""

State = Literal["built", "failed", "impossible", "excluded"]


@dataclass(frozen=True)
class EngineResult:
    """An engine of a cell: who built it, or had it (``cached``), or why nobody did."""

    segment: str
    kind: str
    nbytes: int = 0
    seconds: float = 0.0
    cached: bool = False
    age_seconds: float = 0.0
    worker: str = HERE
    deferred: str | None = None


@dataclass(frozen=True)
class CellResult:
    """What became of a cell. ``result`` is what the matrix's rules make of it.

    ``reason`` says why it failed or was left out, ``hint`` what to do; ``log`` is the file with all
    that its process printed, where it failed. ``tries`` counts how often it or its engines were
    begun: more than once where a process or a worker died.
    """

    cell: str
    model: str
    target: str
    state: State
    reason: str = ""
    hint: str = ""
    error: str = ""  # its class
    result: str = ""
    key: str = ""
    bundle: str | None = None
    nbytes: int = 0
    sha256: str | None = None
    engines: tuple[EngineResult, ...] = ()
    seconds: float = 0.0
    tries: int = 1
    log: str | None = None

    @property
    def is_cached(self) -> bool:
        """Whether no engine of it had to be built."""
        return all(engine.cached or engine.deferred for engine in self.engines)


@dataclass(frozen=True)
class MatrixReport:
    """All cells of a matrix in their order; ``failures`` are those that may not fail."""

    matrix: str
    output: str
    cells: tuple[CellResult, ...]
    failures: Mapping[str, str]
    notes: tuple[str, ...] = ()
    farm: str | None = None
    jobs: int = 1
    seconds: float = 0.0
    schema: str = field(default=SCHEMA, init=False)

    @property
    def passed(self) -> bool:
        """Whether nothing failed that may not."""
        return not self.failures

    @property
    def engines(self) -> tuple[EngineResult, ...]:
        """The engines of all cells that somebody has."""
        return tuple(e for cell in self.cells for e in cell.engines if not e.deferred)

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``totals`` counts states, and engines built, cached and deferred."""
        plain = dataclasses.asdict(self)
        deferred = sum(bool(e.deferred) for cell in self.cells for e in cell.engines)
        cached = sum(engine.cached for engine in self.engines)
        plain["totals"] = {
            **Counter(cell.state for cell in self.cells),
            "engines_built": len(self.engines) - cached,
            "engines_cached": cached,
            "engines_deferred": deferred,
        }
        plain["passed"] = self.passed
        return plain

    def to_json_text(self) -> str:
        """``to_json`` as a file's text."""
        return json.dumps(self.to_json(), indent=2, sort_keys=True) + "\n"

    def to_text(self) -> str:
        """A line for each cell, what failed with its reason, and the sums."""
        return "\n".join(_lines(self)) + "\n"


def _lines(report: MatrixReport) -> Iterator[str]:
    rows = [(c.cell, c.result or c.state, *_told(c)) for c in report.cells]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    for row in rows:
        yield "  ".join(
            text.rjust(w) if i == 2 else text.ljust(w)
            for i, (text, w) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
    for cell in report.cells:
        if cell.state == "failed":
            yield ""
            yield f"{cell.cell}: {cell.reason}"
            log = f"see {cell.log}" if cell.log else ""
            yield from (f"  {text}" for text in (cell.hint, log) if text)
    for name, why in report.failures.items():
        if next(c for c in report.cells if c.cell == name).state != "failed":
            yield from ("", f"{name}: {why}")
    if report.notes:
        yield ""
        yield from report.notes
    yield ""
    yield _sum(report)


def _told(cell: CellResult) -> tuple[str, str]:
    """The size of a bundle, and where its engines are from; or why there is none."""
    if cell.state in ("impossible", "excluded"):
        return "", cell.reason
    if cell.state == "failed":
        return "", cell.error
    parts = []
    for engine in cell.engines:
        where = "" if engine.worker == HERE else f" by {engine.worker}"
        if engine.deferred:
            parts.append("left to the device")
        elif engine.cached:
            parts.append(f"from the cache, built {ago(engine.age_seconds)}{where}")
        else:
            parts.append(f"built in {seconds_text(engine.seconds)}{where}")
    counted = Counter(parts)
    told = "; ".join(f"{n} × {text}" if n > 1 else text for text, n in counted.items())
    again = f", begun {cell.tries} times" if cell.tries > 1 else ""
    return size_text(cell.nbytes), (told or "no engine to build") + again


def _sum(report: MatrixReport) -> str:
    states = Counter(cell.state for cell in report.cells)
    cells = ", ".join(f"{n} {state}" for state, n in states.items())
    total = report.to_json()["totals"]
    counts = [
        f"{total[f'engines_{key}']} {text}"
        for key, text in (
            ("built", "built"),
            ("cached", "from the cache"),
            ("deferred", "left to devices"),
        )
        if total[f"engines_{key}"]
    ]
    engines = f"; engines: {', '.join(counts)}" if counts else ""
    count = "1 cell" if len(report.cells) == 1 else f"{len(report.cells)} cells"
    text = f"{count}: {cells}{engines}; in {seconds_text(report.seconds)}"
    whole = f"{text}; bundles in {report.output}"
    return whole if len(whole) <= WIDTH else f"{text}\nbundles in {report.output}"
