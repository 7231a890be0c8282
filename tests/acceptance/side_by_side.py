# SPDX-License-Identifier: Apache-2.0
"""Latencies that are compared: taken in turns, in one process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from trtpack_runtime.bench import Plan, wall_times
from trtpack_runtime.clocks import Clock


def side_by_side(
    calls: Mapping[str, Callable[[], Any]],
    clock: Clock,
    *,
    rounds: int,
    repeats: int,
    untimed: int,
) -> dict[str, float]:
    """The median latency of each call in milliseconds, taken in turns so that drift hits all."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(untimed):
                call()
            clock.wait()
            times[name].append(wall_times(call, clock, Plan(repeats=repeats)).p50_ms)
    return {name: statistics.median(values) for name, values in times.items()}
