# SPDX-License-Identifier: Apache-2.0
"""Trials beside each other: built so many at a time, timed one at a time once all are built."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from .trial import Found, How, trial

_PAUSE_S = 0.5
_GRACE_S = 5.0


@dataclass
class _Gate:
    """What the trials of a wave share: places to build in, the sign that all are built, and whose
    turn it is to be timed."""

    places: Any
    opened: Any
    turn: Any


@dataclass
class _Child:
    """A trial's process; ``since`` is when it began to be built."""

    process: Any
    said: Connection
    log: Path
    since: float = math.inf
    built: bool = False
    found: Found | None = None
    left_out: bool = False

    def hear(self) -> bool:
        """Takes a word of the trial; False where it died instead."""
        try:
            word = self.said.recv()
        except EOFError:
            self.process.join()
            self.found = {"failed": self._last_words()}
            return False
        if isinstance(word, dict):
            self.found = word
            self.process.join()
        elif word == "built":
            self.built = True
        else:
            self.since = time.monotonic()
        return True

    def end(self) -> None:
        """Ends the process, and what compiles for it."""
        self.process.terminate()
        self.process.join(_GRACE_S)
        self.process.kill()
        self.process.join()

    @property
    def building(self) -> bool:
        """Whether it has a place that it has not given back."""
        return self.since < math.inf and not self.built and self.found is None

    def _last_words(self) -> str:
        told = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return _told(f"the process ended with {self.process.exitcode}: {told[-1] if told else ''}")


@dataclass(frozen=True)
class Waves:
    """How models are tried.

    ``jobs`` are built at a time, ``size`` of them before these are timed; the building of one may
    take ``limit`` seconds, and what is not built at ``end``, of ``time.monotonic()``, is left out.
    """

    how: How
    folder: Path
    jobs: int = 1
    size: int = 1
    limit: float = 900
    end: float = math.inf
    _context: Any = field(default_factory=lambda: multiprocessing.get_context("forkserver"))

    def run(self, names: Sequence[str]) -> Iterator[tuple[str, Found]]:
        """What is found of each model, as it comes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._context.set_forkserver_preload([trial.__module__])
        for first in range(0, len(names), self.size):
            if time.monotonic() < self.end:
                yield from self._wave(names[first : first + self.size])

    def _wave(self, names: Sequence[str]) -> Iterator[tuple[str, Found]]:
        context = self._context
        gate = _Gate(context.Semaphore(self.jobs), context.Event(), context.Lock())
        waiting = {name: self._begun(name, gate) for name in names}
        try:
            while waiting:
                wait([child.said for child in waiting.values()], _PAUSE_S)
                for name, child in list(waiting.items()):
                    self._attend(child, gate)
                    if child.found is not None or child.left_out:
                        del waiting[name]
                    if child.found is not None:
                        yield name, child.found
                if all(child.built for child in waiting.values()):
                    gate.opened.set()
        finally:
            for child in waiting.values():
                child.end()

    def _attend(self, child: _Child, gate: _Gate) -> None:
        """Hears a child, and ends one that takes too long."""
        while child.found is None and child.said.poll():
            held = child.building
            if not child.hear() and held:
                gate.places.release()
        now = time.monotonic()
        late = now > self.end and not child.built
        slow = child.building and now - child.since > self.limit
        if child.found is None and (late or slow):
            held = child.building
            child.end()
            if held:
                gate.places.release()
            child.left_out = late
            child.found = None if late else {"failed": f"not done after {self.limit:g} s"}

    def _begun(self, name: str, gate: _Gate) -> _Child:
        ours, theirs = self._context.Pipe(duplex=False)
        log = self.folder / f"{name}.log"
        log.write_text("")
        process = self._context.Process(target=_try, args=(name, self.how, gate, theirs, log))
        process.start()
        theirs.close()
        return _Child(process, ours, log)


def _told(failure: str) -> str:
    """A failure in short, without the folders of files."""
    return re.sub(r"\S*/(site-packages/)?", "", failure)[:200]


def _try(name: str, how: How, gate: _Gate, tell: Connection, log: Path) -> None:
    """A trial's process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("trtpack.steps").setLevel(logging.DEBUG)
    building = ExitStack()

    @contextmanager
    def quiet() -> Iterator[None]:
        building.close()
        tell.send("built")
        gate.opened.wait()
        with gate.turn:
            yield

    with building:
        building.enter_context(gate.places)
        tell.send("begun")
        try:
            found = trial(name, how, quiet)
        except SystemExit:
            building.pop_all()  # whoever ended it gives its place away
            raise
        except Exception as error:
            traceback.print_exc()
            first = (str(error).strip() or repr(error)).splitlines()[0]
            found = {"failed": _told(f"{type(error).__name__}: {first}")}
    tell.send(found)
