# SPDX-License-Identifier: Apache-2.0
"""Tells what a build is doing. The pipeline talks to it; a front end overrides what is shown."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_LOG = logging.getLogger("trtpack.steps")


@dataclass(frozen=True)
class StepTime:
    """A finished step."""

    name: str
    seconds: float


@dataclass
class Step:
    """A running step: ``text`` is what it is at, ``done`` of ``total`` how far, where known."""

    name: str
    progress: Progress
    started: float = field(default_factory=time.perf_counter)
    text: str = ""
    done: float = 0
    total: float | None = None

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.perf_counter() - self.started

    def detail(self, text: str) -> None:
        """Says in a short clause what the step is doing now."""
        self.text = text
        self.progress.changed(self)

    def update(self, done: float, total: float, text: str = "") -> None:
        """Says that ``done`` of ``total`` is done."""
        self.done, self.total, self.text = done, total, text or self.text
        self.progress.changed(self)


class Progress:
    """Times every step and shows nothing; front ends override ``began``, ``changed``, ``ended``."""

    def __init__(self) -> None:
        self.times: list[StepTime] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Runs the ``with`` block as one step, named by what it does: ``capture the model``."""
        step = Step(name, self)
        self.began(step)
        _LOG.debug("%s ...", name)
        failed = True
        try:
            yield step
            failed = False
        finally:
            self.times.append(StepTime(name, step.seconds))
            _LOG.debug("%s: %s%.1f s", name, "failed after " * failed, step.seconds)
            self.ended(step, failed)

    def began(self, step: Step) -> None:
        """A step begins."""

    def changed(self, step: Step) -> None:
        """A step said what it is doing, or how far it is."""

    def ended(self, step: Step, failed: bool) -> None:
        """A step ended, ``failed`` if by an exception; its time is the last of ``times``."""
