# SPDX-License-Identifier: Apache-2.0
"""How far an engine build is, as a person wants to know it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .durations import about, short

_TELLING = 0.1
"""The part of a phase after which its pace says how long the rest takes."""


@dataclass(frozen=True)
class Progress:
    """A build of one engine of ``count``, its phase and how much of that is done.

    ``elapsed`` and ``remaining`` are seconds; what is not known is None. ``phase`` is ``waiting``
    while another process builds the same engine.
    """

    segment: str
    layers: int
    phase: str
    fraction: float | None
    elapsed: float
    remaining: float | None
    index: int = 0
    count: int = 1
    parts: str = "layers"
    """What ``layers`` counts: ``operators`` of what PyTorch compiles."""

    def text(self) -> str:
        """``building forward_0 (1 of 2): tactic selection 42 %, 12 s, about 30 s left``."""
        if self.phase == "waiting":
            return self.begin()
        phase = self.phase or f"{self.layers} {self.parts}"
        done = "" if self.fraction is None else f" {self.fraction * 100:.0f} %"
        left = "" if self.remaining is None else f", {about(self.remaining)} left"
        return f"building {self._which}: {phase}{done}, {short(self.elapsed)}{left}"

    def begin(self) -> str:
        """What is said once: ``building forward_0: 42 layers, about 30 s``."""
        if self.phase == "waiting":
            return f"waiting for {self._which}, which another process builds"
        took = "" if self.remaining is None else f", {about(self.remaining)}"
        return f"building {self._which}: {self.layers} {self.parts}{took}"

    @property
    def _which(self) -> str:
        if self.count == 1:
            return self.segment
        return f"{self.segment} ({self.index + 1} of {self.count})"


OnProgress = Callable[[Progress], None]


class Watch:
    """Makes ``Progress`` of what TensorRT tells: nested phases with steps, or nothing at all."""

    def __init__(
        self, segment: str, layers: int, on_progress: OnProgress | None, parts: str = "layers"
    ) -> None:
        self._segment, self._layers, self._tell = segment, layers, on_progress
        self._parts = parts
        self._began = time.monotonic()
        self._expected: float | None = None
        self._outer: tuple[str, float] | None = None
        self._pace: float | None = None

    def waiting(self) -> None:
        """Says that the build waits for its turn."""
        self._say("waiting", None)

    def starts(self, expected: float | None) -> None:
        """The build starts; it took ``expected`` seconds before, None where that is not known."""
        self._began, self._expected = time.monotonic(), expected
        self._say("", None)

    def event(self, event: Mapping[str, Any]) -> None:
        """What TensorRT's progress monitor told."""
        phase, step, steps = str(event["phase"]), int(event["step"]), int(event["steps"])
        fraction = min(step / steps, 1.0) if steps > 0 else None
        now = time.monotonic()
        if fraction is not None and steps > 1 and not event.get("parent"):
            if self._outer is None or self._outer[0] != phase:
                self._outer, self._pace = (phase, now), None
            if fraction >= _TELLING:
                self._pace = now + (now - self._outer[1]) * (1 - fraction) / fraction
        self._say(phase.lower(), fraction)

    def _say(self, phase: str, fraction: float | None) -> None:
        if self._tell is None:
            return
        now = time.monotonic()
        remaining = None
        if self._expected is not None:
            remaining = self._expected - (now - self._began)
        elif self._pace is not None:
            remaining = self._pace - now
        if remaining is not None and remaining <= 0:
            remaining = None  # it takes longer than before: nothing is known any more
        elapsed = now - self._began
        told = Progress(self._segment, self._layers, phase, fraction, elapsed, remaining)
        self._tell(replace(told, parts=self._parts))
