# SPDX-License-Identifier: Apache-2.0
"""Latency figures, with a clock that the test moves."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtpack_runtime import bench


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0

    def __call__(self) -> float:
        return self.now

    def step(self) -> None:
        self.calls += 1
        self.now += self.calls * 1e-3


def test_warm_up_is_not_timed() -> None:
    clock = Clock()
    latency = bench.measure(clock.step, warmup=2, repeats=4, clock=clock, items_per_call=8)
    assert (latency.warmup, latency.repeats) == (2, 4)
    assert (latency.min_ms, latency.max_ms) == pytest.approx((3, 6))
    assert latency.mean_ms == latency.p50_ms == pytest.approx(4.5)
    assert latency.items_per_second == pytest.approx(8 / 4.5e-3)
    assert latency.to_json()["calls_per_second"] == pytest.approx(1 / 4.5e-3)


def test_the_budget_ends_it_but_never_without_figures() -> None:
    clock = Clock()
    latency = bench.measure(clock.step, warmup=100, repeats=100, budget_s=5e-3, clock=clock)
    assert (latency.warmup, latency.repeats) == (3, bench.LEAST_REPEATS)


def test_waiting_for_the_device_is_part_of_the_call() -> None:
    clock = Clock()
    latency = bench.measure(lambda: None, warmup=0, repeats=3, clock=clock, synchronize=clock.step)
    assert latency.max_ms == pytest.approx(3)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([50, 90, 99]))
def test_percentiles_are_numpys(values: list[float], percent: float) -> None:
    got = bench.percentile(sorted(values), percent)
    assert got == pytest.approx(float(numpy.percentile(values, percent)))
