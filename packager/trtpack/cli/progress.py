# SPDX-License-Identifier: Apache-2.0
"""Shows the steps of a build: live on a terminal, as plain lines elsewhere, or not at all."""

from __future__ import annotations

import sys
import threading
from typing import TextIO

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ..report import Progress, Step
from ..report.text import seconds_text

SHOWN_AFTER_SECONDS = 1.0
"""Shorter steps leave no trace."""


def progress_for(*, quiet: bool, stream: TextIO | None = None) -> Progress:
    """The progress that fits the stream, by default standard error."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        return Progress()
    return LiveProgress(stream) if stream.isatty() else PlainProgress(stream)


class PlainProgress(Progress):
    """A line when a step has run for a second, and one with its time when it is done."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def began(self, step: Step) -> None:
        self._timer = threading.Timer(SHOWN_AFTER_SECONDS, self._show, (step,))
        self._timer.daemon = True
        self._timer.start()

    def ended(self, step: Step, failed: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        seconds = self.times[-1].seconds
        if seconds >= SHOWN_AFTER_SECONDS:
            self._line(f"{step.name}: {'failed after ' * failed}{seconds_text(seconds)}")

    def _show(self, step: Step) -> None:
        self._line(f"{step.name} ...")

    def _line(self, text: str) -> None:
        with self._lock:
            self._stream.write(f"{text}\n")
            self._stream.flush()


class LiveProgress(Progress):
    """The running step with a spinner, what it is at, and the time so far."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._console = Console(file=stream, highlight=False)
        self._bars: Bars | None = None
        self._task = TaskID(0)

    def say(self, text: str) -> None:
        """Prints a line above the running step."""
        self._console.print(text, markup=False, soft_wrap=True)

    def began(self, step: Step) -> None:
        self._bars = Bars(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bars.add_task(step.name, total=None, detail="")
        self._bars.start()

    def changed(self, step: Step) -> None:
        if self._bars is not None:
            text = step.text
            if step.total:
                text = f"{100 * step.done / step.total:3.0f} %  {text}"
            width = max(10, self._console.width - len(step.name) - 16)
            self._bars.update(self._task, detail=text[:width])

    def ended(self, step: Step, failed: bool) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        seconds = self.times[-1].seconds
        if seconds >= SHOWN_AFTER_SECONDS:
            mark = "[red]✗[/]" if failed else "[green]✓[/]"
            name = step.name.replace("[", r"\[")
            self._console.print(f"{mark} {name} [dim]{seconds_text(seconds)}[/]")
