# SPDX-License-Identifier: Apache-2.0
"""Shows the cells of a matrix while they are built: a row for each on a terminal, else lines."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Rows
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ..farm import CellResult, View
from ..farm.report import HERE
from ..report.text import seconds_text


def view_for(*, quiet: bool, stream: TextIO | None = None) -> CountingView:
    """The view that fits the stream, by default standard error."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        return CountingView()
    return LiveView(stream) if stream.isatty() else PlainView(stream)


class CountingView(View):
    """Shows nothing, and knows how many cells are done."""

    def __init__(self) -> None:
        self.count, self.done = 0, 0

    def begins(self, count: int) -> None:
        self.count = count

    def ends(self, result: CellResult) -> None:
        self.done += 1

    def count_done(self) -> str:
        """``3 of 24 cells are done``."""
        return f"{self.done} of {self.count} cells are done"


class PlainView(CountingView):
    """A line where a cell begins somewhere else, one where it waits, one where it ends."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._at: dict[str, str] = {}

    def at(self, cell: str, where: str, text: str) -> None:
        self._moves(cell, "builds here" if where == HERE else f"builds on {where}")

    def waits(self, cell: str, text: str) -> None:
        self._moves(cell, text.partition(":")[0])

    def ends(self, result: CellResult) -> None:
        super().ends(result)
        self.says(f"[{self.done}/{self.count}] {ended(result)}")

    def says(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def _moves(self, cell: str, text: str) -> None:
        if self._at.get(cell) != text:
            self._at[cell] = text
            self.says(f"{cell}: {text}")


class LiveView(CountingView):
    """How many are done, and a row for each cell that somebody works at or that waits."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._console = Console(file=stream, highlight=False)
        self._rows = Rows(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[where]}", style="cyan", markup=False),
            TextColumn("{task.fields[text]}", style="dim", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._total: TaskID | None = None

    def begins(self, count: int) -> None:
        super().begins(count)
        self._rows.start()
        self._total = self._rows.add_task("all cells", total=count, where="", text=f"of {count}")

    def at(self, cell: str, where: str, text: str) -> None:
        self._row(cell, where, text)

    def waits(self, cell: str, text: str) -> None:
        self._row(cell, "", text)

    def ends(self, result: CellResult) -> None:
        super().ends(result)
        if result.cell in self._tasks:
            self._rows.remove_task(self._tasks.pop(result.cell))
        if self._total is not None:
            text = f"{self.done} of {self.count} done"
            self._rows.update(self._total, completed=self.done, text=text)
        mark = "[red]✗[/]" if result.state == "failed" else "[green]✓[/]"
        self._console.print(f"{mark} {escape(ended(result))}", soft_wrap=True)

    def says(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def closes(self) -> None:
        self._rows.stop()

    def _row(self, cell: str, where: str, text: str) -> None:
        if cell not in self._tasks:
            self._tasks[cell] = self._rows.add_task(cell, total=None, where="", text="")
        room = max(10, self._console.width - len(cell) - len(where) - 18)
        self._rows.update(self._tasks[cell], where=where, text=text[:room])


def ended(result: CellResult) -> str:
    """``resnet18-orin: built in 12.0 s``, ``resnet18-orin: failed: cannot ...``."""
    if result.state == "failed":
        return f"{result.cell}: failed: {result.reason}"
    cached = result.engines and all(engine.cached for engine in result.engines)
    how = "from the cache" if cached else "built"
    return f"{result.cell}: {how} in {seconds_text(result.seconds)}"
