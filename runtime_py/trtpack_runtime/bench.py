# SPDX-License-Identifier: Apache-2.0
"""How long a call takes: warm-up until it changes nothing more, wall and GPU times, throughput."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from .clocks import Clock

LEAST_CALLS = 3
"""Calls timed even when the time budget is spent."""

CALLS, MOST_CALLS, MORE_S = 30, 300, 1.0
"""Where the number of timed calls is left open: at least the first, at most the second, as many as
fit these seconds."""

WINDOW_CALLS, WINDOW_S, STEADY = 3, 0.05, 0.03
"""Warm-up is over when the medians of two windows of so many calls and seconds differ by less."""

WARMUP_LIMIT_S = 5.0
IN_FLIGHT = 8
"""Calls that follow one another before the device is waited for."""


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Args:
        warmup: untimed calls; None for as many as it takes until their times settle.
        repeats: timed calls; None for 30 to 300, as many as fit a second.
        budget_s: stop after so many seconds, of which warm-up takes at most half.
    """

    warmup: int | None = None
    repeats: int | None = None
    budget_s: float = 20.0


@dataclass(frozen=True)
class Times:
    """Milliseconds a call, over so many calls."""

    calls: int
    p25_ms: float
    p50_ms: float
    p75_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float
    max_ms: float

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Warmup:
    """The untimed calls. ``stable`` says whether their times settled, None where nobody looked."""

    calls: int
    seconds: float
    stable: bool | None


@dataclass(frozen=True)
class Bench:
    """What was measured.

    ``wall`` is from the call until its result is there, every call waited for. ``gpu`` is what the
    device took by its own events, calls following one another; None where the host computes.
    ``overlapped`` says whether the throughput is that of calls following one another so.
    """

    warmup: Warmup
    wall: Times
    gpu: Times | None
    calls_per_second: float
    overlapped: bool
    items_per_call: int = 1

    @property
    def items_per_second(self) -> float:
        """Batch elements a second."""
        return self.calls_per_second * self.items_per_call

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            "warmup": asdict(self.warmup),
            "wall": self.wall.to_json(),
            "gpu": None if self.gpu is None else self.gpu.to_json(),
            "calls_per_second": self.calls_per_second,
            "items_per_second": self.items_per_second,
            "items_per_call": self.items_per_call,
            "overlapped": self.overlapped,
        }


Call = Callable[[], Any]


def bench(
    call: Call,
    clock: Clock,
    plan: Plan,
    *,
    prepare: Call | None = None,
    items_per_call: int = 1,
    now: Callable[[], float] = time.perf_counter,
) -> Bench:
    """Measures ``call`` on what ``clock`` is the clock of.

    Args:
        call: answers before the device is done, where ``clock.asynchronous``.
        prepare: done before every call and not timed, such as putting state back; calls then never
            follow one another without a pause.
        items_per_call: batch elements in a call.
        now: seconds on the host.
    """
    begin = now()
    end = begin + plan.budget_s
    warmup = _warm_up(call, clock, plan, prepare, now)
    wall = wall_times(call, clock, plan, prepare=prepare, end=end, now=now)
    if not clock.asynchronous:
        return Bench(warmup, wall, None, _per_second(wall), False, items_per_call)
    if prepare is not None:
        gpu = _one_by_one(call, clock, wall.calls, prepare, end, now)
        return Bench(warmup, wall, gpu, _per_second(wall), False, items_per_call)
    gpu, per_second = _following(call, clock, wall.calls, end, now)
    return Bench(warmup, wall, gpu, per_second, True, items_per_call)


def wall_times(
    call: Call,
    clock: Clock,
    plan: Plan,
    *,
    prepare: Call | None = None,
    end: float = float("inf"),
    now: Callable[[], float] = time.perf_counter,
) -> Times:
    """Times calls until their result is there, without warm-up, until ``now()`` is ``end``."""
    times: list[float] = []
    begin = now()
    while not _enough(len(times), plan.repeats, now() - begin, now() >= end):
        _before(prepare, clock)
        start = now()
        call()
        clock.wait()
        times.append((now() - start) * 1e3)
    return summarize(times)


def summarize(times_ms: Sequence[float]) -> Times:
    """The figures of a list of times; ValueError if it is empty."""
    if not times_ms:
        raise ValueError("no call was timed")
    ordered = sorted(times_ms)
    return Times(
        calls=len(ordered),
        p25_ms=percentile(ordered, 25),
        p50_ms=percentile(ordered, 50),
        p75_ms=percentile(ordered, 75),
        p90_ms=percentile(ordered, 90),
        p99_ms=percentile(ordered, 99),
        mean_ms=sum(ordered) / len(ordered),
        min_ms=ordered[0],
        max_ms=ordered[-1],
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """A percentile of sorted values, interpolated between neighbours as numpy does."""
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _warm_up(
    call: Call, clock: Clock, plan: Plan, prepare: Call | None, now: Callable[[], float]
) -> Warmup:
    begin = now()
    limit_s = plan.budget_s / 2 if plan.warmup else min(WARMUP_LIMIT_S, plan.budget_s / 2)
    calls, window, medians, stable = (
        0,
        [],
        list[float](),
        None if plan.warmup is not None else False,
    )
    while plan.warmup is None or calls < plan.warmup:
        _before(prepare, clock)
        start = now()
        call()
        clock.wait()
        calls += 1
        window.append(now() - start)
        if plan.warmup is None and len(window) >= WINDOW_CALLS and sum(window) >= WINDOW_S:
            medians.append(statistics.median(window))
            window = []
            if len(medians) > 1 and abs(medians[-1] - medians[-2]) <= STEADY * medians[-2]:
                stable = True
                break
        if now() - begin >= limit_s:
            break
    return Warmup(calls, now() - begin, stable)


def _enough(done: int, repeats: int | None, seconds: float, late: bool) -> bool:
    """Whether so many calls in so many seconds are enough."""
    if late:
        return done >= min(LEAST_CALLS, repeats or LEAST_CALLS)
    if repeats is not None:
        return done >= repeats
    return done >= MOST_CALLS or (done >= CALLS and seconds >= MORE_S)


def _before(prepare: Call | None, clock: Clock) -> None:
    if prepare is not None:
        prepare()
        clock.wait()


def _one_by_one(
    call: Call, clock: Clock, count: int, prepare: Call, end: float, now: Callable[[], float]
) -> Times:
    """What the device takes for a call that it has been prepared for."""
    times: list[float] = []
    while not _enough(len(times), count, 0.0, now() >= end):
        _before(prepare, clock)
        start = clock.mark()
        call()
        done = clock.mark()
        clock.wait()
        times.append(clock.elapsed_ms(start, done))
    return summarize(times)


def _following(
    call: Call, clock: Clock, count: int, end: float, now: Callable[[], float]
) -> tuple[Times, float]:
    """What the device takes for a call after another, and how many it does in a second."""
    times: list[float] = []
    seconds = 0.0
    while not _enough(len(times), count, 0.0, now() >= end):
        start = now()
        marks = [clock.mark()]
        for _ in range(min(IN_FLIGHT, count - len(times))):
            call()
            marks.append(clock.mark())
        clock.wait()
        seconds += now() - start
        times += [clock.elapsed_ms(a, b) for a, b in pairwise(marks)]
    return summarize(times), len(times) / seconds if seconds else float("inf")


def _per_second(wall: Times) -> float:
    return 1e3 / wall.mean_ms if wall.mean_ms else float("inf")
