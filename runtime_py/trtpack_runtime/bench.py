# SPDX-License-Identifier: Apache-2.0
"""Latency of a call: warm-up, repeats, percentiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LEAST_REPEATS = 3
"""Calls timed even when the time budget is spent."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call, over ``repeats`` calls after ``warmup`` untimed ones."""

    warmup: int
    repeats: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float
    max_ms: float
    items_per_call: int = 1

    @property
    def calls_per_second(self) -> float:
        """Calls a second, one after the other."""
        return 1e3 / self.mean_ms if self.mean_ms else float("inf")

    @property
    def items_per_second(self) -> float:
        """Batch elements a second."""
        return self.calls_per_second * self.items_per_call

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values, throughput included."""
        return {
            **asdict(self),
            "calls_per_second": self.calls_per_second,
            "items_per_second": self.items_per_second,
        }


def measure(
    call: Callable[[], Any],
    *,
    warmup: int = 3,
    repeats: int = 30,
    budget_s: float = 20.0,
    items_per_call: int = 1,
    synchronize: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Times ``call``; stops early when warm-up and repeats have taken ``budget_s`` seconds.

    ``synchronize`` waits for the device; it is part of every timed call.
    """
    wait = synchronize or _nothing
    end = clock() + budget_s
    warmed = 0
    while warmed < warmup and (warmed == 0 or clock() < end):
        call()
        wait()
        warmed += 1
    times: list[float] = []
    while len(times) < repeats and (len(times) < LEAST_REPEATS or clock() < end):
        start = clock()
        call()
        wait()
        times.append((clock() - start) * 1e3)
    return summarize(times, warmup=warmed, items_per_call=items_per_call)


def summarize(times_ms: Sequence[float], *, warmup: int = 0, items_per_call: int = 1) -> Latency:
    """The figures of a list of times; ValueError if it is empty."""
    if not times_ms:
        raise ValueError("no call was timed")
    ordered = sorted(times_ms)
    return Latency(
        warmup=warmup,
        repeats=len(ordered),
        p50_ms=percentile(ordered, 50),
        p90_ms=percentile(ordered, 90),
        p99_ms=percentile(ordered, 99),
        mean_ms=sum(ordered) / len(ordered),
        min_ms=ordered[0],
        max_ms=ordered[-1],
        items_per_call=items_per_call,
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """A percentile of sorted values, interpolated between neighbours as numpy does."""
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _nothing() -> None: ...
