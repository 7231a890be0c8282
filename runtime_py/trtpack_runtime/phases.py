# SPDX-License-Identifier: Apache-2.0
"""How long the phases of a start take.

``with phase("verify"):`` anywhere below ``with times.measuring():`` adds to ``times``; a phase
within another one counts for the inner alone, so the seconds add up to the whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

PHASES = ("open", "verify", "resolve", "build", "map", "deserialise", "context", "warm-up")
"""In their order: the file's manifest and layout; digests of members; which variant fits, and into
the memory; engines built here; programs and weights as tensors; engines read; memory to run them;
first calls."""


class LoadTimes:
    """Seconds a phase; only phases that took place."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self._seconds = dict(seconds or {})
        self._running: list[str] = []
        self._mark = 0.0

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in self.seconds.items())
        return f"LoadTimes({told})"

    def __add__(self, other: LoadTimes) -> LoadTimes:
        names = {*self._seconds, *other._seconds}
        return LoadTimes({n: self._seconds.get(n, 0) + other._seconds.get(n, 0) for n in names})

    @property
    def seconds(self) -> Mapping[str, float]:
        """Phase -> seconds, in the order of ``PHASES``."""
        return {name: self._seconds[name] for name in PHASES if name in self._seconds}

    @property
    def total(self) -> float:
        """The seconds of all phases."""
        return sum(self._seconds.values())

    def to_json(self) -> dict[str, float]:
        """Plain values, with ``total``."""
        found = {**self.seconds, "total": self.total}
        return {name: round(seconds, 6) for name, seconds in found.items()}

    @contextmanager
    def measuring(self) -> Iterator[LoadTimes]:
        """Makes ``phase`` count here, in this thread, until the block ends."""
        token = _CURRENT.set(self)
        try:
            yield self
        finally:
            _CURRENT.reset(token)

    def _enter(self, name: str) -> None:
        self._count()
        self._seconds.setdefault(name, 0.0)
        self._running.append(name)

    def _leave(self) -> None:
        self._count()
        self._running.pop()

    def _count(self) -> None:
        """Adds what has passed since the last change to the innermost phase."""
        now = time.perf_counter()
        if self._running:
            self._seconds[self._running[-1]] += now - self._mark
        self._mark = now


_CURRENT: ContextVar[LoadTimes | None] = ContextVar("trtpack_load_times", default=None)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Counts the block as a phase of the start that is measured here, if any is."""
    times = _CURRENT.get()
    if times is None:
        yield
        return
    times._enter(name)
    try:
        yield
    finally:
        times._leave()
