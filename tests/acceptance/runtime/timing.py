# SPDX-License-Identifier: Apache-2.0
"""What the host takes for a call, several kinds of call side by side."""

from __future__ import annotations

import cProfile
import io
import pstats
import statistics
import time
from collections.abc import Callable, Mapping

Call = Callable[[], object]


def enqueued_us(
    calls: Mapping[str, Call],
    wait: Callable[[], None],
    *,
    rounds: int = 60,
    repeats: int = 100,
    warm_s: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Microseconds until a call returns, which does not wait for the device.

    A round makes ``repeats`` calls of each kind in turn, so that drift hits all, and waits for the
    device in between; the median of the rounds counts. ``repeats`` is few enough for the device's
    queue, or the host would wait there. Calls of the first ``warm_s`` seconds do not count, in
    which the host comes to its full speed.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    ready = clock() + warm_s
    while warm_s and clock() < ready:
        for call in calls.values():
            call()
        wait()
    for _ in range(rounds):
        for name, call in calls.items():
            wait()
            began = clock()
            for _ in range(repeats):
                call()
            times[name].append((clock() - began) / repeats * 1e6)
    wait()
    return {name: statistics.median(values) for name, values in times.items()}


def finished_us(
    calls: Mapping[str, Call],
    wait: Callable[[], None],
    *,
    rounds: int = 30,
    repeats: int = 30,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Microseconds until the device is done with a call, each waited for; in turns, the median."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(repeats):
                began = clock()
                call()
                wait()
                times[name].append((clock() - began) * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def where_time_goes(call: Call, *, calls: int = 20_000, lines: int = 25) -> str:
    """Python's functions in a call by the time they take themselves, as cProfile counts it."""
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(calls):
        call()
    profile.disable()
    told = io.StringIO()
    pstats.Stats(profile, stream=told).sort_stats("tottime").print_stats(lines)
    return told.getvalue()
