# SPDX-License-Identifier: Apache-2.0
"""Shows how far engine builds are: one line that changes on a terminal, else a line an engine."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from dataclasses import replace

import click

from ..progress import Progress

_TICK_S = 0.5
_CLEAR = "\r\x1b[K"


class BuildLine:
    """Told of ``Progress``; in a ``with`` block, so that the line is gone when something ends it.

    On a terminal the time goes on between what TensorRT tells, which old releases do not at all.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet, self._live = quiet, sys.stderr.isatty()
        self._last: tuple[Progress, float] | None = None
        self._lock, self._over = threading.Lock(), threading.Event()
        self._said: set[tuple[str, bool]] = set()

    def __enter__(self) -> BuildLine:
        if self._live and not self._quiet:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        with self._lock:
            if self._live and self._last is not None:
                click.echo(_CLEAR, err=True, nl=False)
            self._last = None

    def __call__(self, progress: Progress) -> None:
        """Shows how far a build is."""
        if self._quiet:
            return
        with self._lock:
            self._last = (progress, time.monotonic())
            key = (progress.segment, progress.phase == "waiting")
            if not self._live and key not in self._said:
                self._said.add(key)
                click.echo(progress.begin(), err=True)
        if self._live:
            self._draw()

    def _tick(self) -> None:
        while not self._over.wait(_TICK_S):
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            if self._last is None or self._over.is_set():
                return
            progress, told = self._last
            passed = time.monotonic() - told
            left = None if progress.remaining is None else progress.remaining - passed
            now = replace(
                progress,
                elapsed=progress.elapsed + passed,
                remaining=left if left is not None and left > 0 else None,
            )
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"{_CLEAR}{now.text()[:width]}", err=True, nl=False)
