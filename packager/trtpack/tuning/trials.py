# SPDX-License-Identifier: Apache-2.0
"""What is known of a trial, as it stands in the log and in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..options import OptimizeName
from .comparing import Interval
from .space import flags

USUAL, BEST, FAILED = "usual", "best", "failed"
"""States: the settings as they were given; better than the best before; could not be built, or
broke its budget. ``slower``, ``alike``, ``larger`` and ``same`` (the engine of another trial) are
the others."""


@dataclass(frozen=True)
class Trial:
    """One choice of settings.

    ``of_usual`` and ``of_best`` are its time as a share of that of the usual settings, and of the
    best before it. ``latency_ms`` and ``per_second`` were taken at another time than those of other
    trials, so it is by the shares that trials are compared; ``latency_of_usual`` and
    ``per_second_of_usual`` are shares too, whichever of them ``of_usual`` is. ``content`` is a
    digest of its programs and engines. ``rebuild`` counts how often these settings were built
    before.
    """

    number: int
    settings: Mapping[str, Any]
    state: str
    why: str | None = None
    of_usual: Interval | None = None
    of_best: Interval | None = None
    rounds: int = 0
    latency_ms: float | None = None
    per_second: float | None = None
    latency_of_usual: float | None = None
    per_second_of_usual: float | None = None
    memory_bytes: int | None = None
    engine_bytes: int | None = None
    content: str | None = None
    build_seconds: float = 0.0
    measure_seconds: float = 0.0
    rebuild: int = 0

    @property
    def time(self) -> float | None:
        """Its time as a share of the usual settings'; None where it has none."""
        if self.state == USUAL:
            return 1.0
        return None if self.of_usual is None else self.of_usual.middle

    def to_json(self) -> dict[str, Any]:
        """Plain values, a line of the log."""
        plain = dict(self.__dict__)
        for name in ("of_usual", "of_best"):
            if plain[name] is not None:
                plain[name] = plain[name].to_json()
        return {**plain, "settings": dict(self.settings), "flags": flags(self.settings)}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Trial:
        """The trial of a log's line.

        Raises:
            TypeError, KeyError: another release wrote it.
        """
        made = cls(**{name: value for name, value in line.items() if name != "flags"})
        return replace(
            made, of_usual=_interval(line["of_usual"]), of_best=_interval(line["of_best"])
        )


def _interval(found: Mapping[str, float] | None) -> Interval | None:
    return None if found is None else Interval(**found)


def pareto(trials: Sequence[Trial]) -> tuple[int, ...]:
    """The numbers of those trials that no other is as good as in everything and better in one:
    latency, throughput, memory and size of the engines."""
    measured = {t.number: _figures(t) for t in trials if t.time is not None}
    return tuple(
        number
        for number, one in measured.items()
        if not any(
            other != one and all(a <= b for a, b in zip(other, one, strict=True))
            for other in measured.values()
        )
    )


def _figures(trial: Trial) -> tuple[float, ...]:
    time = trial.time or 0.0
    latency = time if trial.latency_of_usual is None else trial.latency_of_usual
    rate = trial.per_second_of_usual
    return (
        latency,
        time if rate is None else 1 / rate,
        trial.memory_bytes or 0,
        trial.engine_bytes or 0,
    )


def is_better(
    memory: int, than: int, outcome: str, optimize: OptimizeName, worth: float
) -> tuple[bool, str]:
    """Whether a candidate takes the best one's place, and the state of its trial."""
    if optimize != "memory":
        return outcome == "faster", BEST if outcome == "faster" else outcome
    if memory < than * (1 - worth):
        return True, BEST
    return False, "larger" if memory > than * (1 + worth) else "alike"
