# SPDX-License-Identifier: Apache-2.0
"""The results as tables, for a terminal or for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.acceptance.runtime.results import Part, Results
from tests.acceptance.runtime.row import Figure, Row
from tests.acceptance.table import Bar

HEAD = [
    "# What the runtime costs",
    "",
    "Written by `scripts/gpu_runtime_bench --write`; each part ran in a process of its own.",
]


def tables(part: Part) -> list[list[list[str]]]:
    """A part's rows as tables of cells, the head first; a figure that a row lacks is left empty.

    Rows that have a figure in common share a table. Where a table has more figures than rows, each
    figure is a line.
    """
    found: list[list[Row]] = []
    for row in part.rows.values():
        names = row.figures.keys()
        alike = [rows for rows in found if any(names & other.figures.keys() for other in rows)]
        if alike:
            alike[0].append(row)
        elif names:
            found.append([row])
    return [_cells(rows) for rows in found]


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    figures = list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = [["", *figures]]
    lines += [[row.name, *(_cell(row.figures.get(f, "")) for f in figures)] for row in rows]
    return lines if len(figures) <= len(rows) else [list(line) for line in zip(*lines, strict=True)]


def bars(part: Part) -> list[Bar]:
    """Every demand that the part's rows answer."""
    return [bar for row in part.rows.values() for bar in row.bars]


def text(part: Part) -> str:
    """A part for a terminal."""
    lines = [part.title]
    for table in tables(part):
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in table]
    lines += [f"{'ok  ' if b.holds else 'FAIL'}  {b.text}: {b.found}" for b in bars(part)]
    lines += _notes(part)
    if part.error:
        lines.append(f"FAIL  {part.error}")
    elif not part.whole:
        lines.append("not at its end yet")
    return "\n".join(line.rstrip() for line in lines)


def markdown(results: Results, names: Sequence[str]) -> str:
    """The page of the documentation, with the parts of these names in their order."""
    lines = [*HEAD, "", *(f"- {key}: {value}" for key, value in results.machine.items())]
    for name in names:
        part = results.parts.get(name)
        if part is None or not part.rows:
            lines += ["", f"## {name}", "", "Not measured yet."]
            continue
        lines += ["", f"## {part.title}"]
        for table in tables(part):
            lines += ["", *_table(table)]
        found = [[b.text, b.found, "yes" if b.holds else "no"] for b in bars(part)]
        if found:
            lines += ["", *_table([["demand", "found", "holds"], *found])]
        for note in _notes(part):
            lines += ["", note]
        if part.error or not part.whole:
            lines += ["", "This part did not come to its end."]
    return "\n".join([*lines, ""])


def _table(table: Iterable[Sequence[str]]) -> list[str]:
    head, *rows = table
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _notes(part: Part) -> list[str]:
    return list(dict.fromkeys(note for row in part.rows.values() for note in row.notes))


def _cell(figure: Figure) -> str:
    return f"{figure:.4g}" if isinstance(figure, float) and figure < 1000 else _plain(figure)


def _plain(figure: Figure) -> str:
    return f"{figure:.0f}" if isinstance(figure, float) else str(figure)
