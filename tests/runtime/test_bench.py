# SPDX-License-Identifier: Apache-2.0
"""Latency figures, with clocks that the test moves."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtpack_runtime import bench as bench_module
from trtpack_runtime.bench import IN_FLIGHT, LEAST_CALLS, Plan, bench, percentile, summarize
from trtpack_runtime.clocks import HostClock


class Host:
    """The host's time in seconds; every call takes what the test says, in ms."""

    def __init__(self, *call_ms: float) -> None:
        self.now, self.calls, self._call_ms = 0.0, 0, call_ms

    def __call__(self) -> float:
        return self.now

    def call(self) -> None:
        self.now += self._call_ms[min(self.calls, len(self._call_ms) - 1)] / 1e3
        self.calls += 1


class Device:
    """A GPU beside a host: a call returns at once, its work takes 2 ms, waiting another 1 ms."""

    asynchronous = True

    def __init__(self, host: Host) -> None:
        self.host, self.journal = host, list[str]()
        self._ready = 0.0

    def call(self) -> None:
        self.host.calls += 1
        self.journal.append("call")
        self._ready = max(self._ready, self.host.now) + 2e-3

    def mark(self) -> float:
        return max(self._ready, self.host.now)

    def wait(self) -> None:
        self.journal.append("wait")
        self.host.now = max(self._ready, self.host.now) + 1e-3

    def elapsed_ms(self, begin: float, end: float) -> float:
        return (end - begin) * 1e3


def test_warm_up_is_not_timed() -> None:
    host = Host(1, 2, 3, 4, 5, 6)
    found = bench(host.call, HostClock(), Plan(2, 4), items_per_call=8, now=host)
    assert (found.warmup.calls, found.warmup.stable, found.wall.calls) == (2, None, 4)
    assert (found.wall.min_ms, found.wall.max_ms) == pytest.approx((3, 6))
    assert found.wall.mean_ms == found.wall.p50_ms == pytest.approx(4.5)
    assert found.gpu is None
    assert found.items_per_second == pytest.approx(8 / 4.5e-3)
    assert found.to_json()["calls_per_second"] == pytest.approx(1 / 4.5e-3)


def test_warm_up_ends_when_times_settle() -> None:
    falling = [100.0 / (1 + i) for i in range(12)]
    host = Host(*falling, 10)
    found = bench(host.call, HostClock(), Plan(repeats=5), now=host)
    assert found.warmup.stable
    assert found.wall.max_ms == pytest.approx(10)
    assert 12 < found.warmup.calls < 40


def test_warm_up_gives_up_on_times_that_never_settle() -> None:
    host = Host(*(100.0 * 1.2**i for i in range(100)))
    found = bench(host.call, HostClock(), Plan(repeats=3), now=host)
    assert found.warmup.stable is False
    assert found.warmup.seconds < bench_module.WARMUP_LIMIT_S + 2


@pytest.mark.parametrize(("call_ms", "calls"), [(100, 30), (10, 100), (1, 300)])
def test_as_many_calls_as_fit_a_second(call_ms: float, calls: int) -> None:
    host = Host(call_ms)
    assert bench(host.call, HostClock(), Plan(), now=host).wall.calls == calls


def test_the_budget_ends_it_but_never_without_figures() -> None:
    host = Host(1)
    found = bench(host.call, HostClock(), Plan(100, 100, 5e-3), now=host)
    assert (found.warmup.calls, found.wall.calls) == (3, LEAST_CALLS)
    assert bench(host.call, HostClock(), Plan(0, 1, 0.0), now=host).wall.calls == 1


def test_wall_times_wait_and_gpu_times_do_not() -> None:
    host = Host()
    device = Device(host)
    found = bench(device.call, device, Plan(1, 2 * IN_FLIGHT), now=host)
    assert found.wall.p50_ms == pytest.approx(3)
    assert found.gpu is not None
    assert (found.gpu.calls, found.gpu.p99_ms) == (2 * IN_FLIGHT, pytest.approx(2))
    assert found.overlapped
    assert found.calls_per_second == pytest.approx(IN_FLIGHT / (2e-3 * IN_FLIGHT + 1e-3))
    one_by_one = ["call", "wait"] * (1 + 2 * IN_FLIGHT)
    assert device.journal == one_by_one + (["call"] * IN_FLIGHT + ["wait"]) * 2


def test_what_is_prepared_is_not_timed_and_calls_do_not_overlap() -> None:
    host = Host()
    device = Device(host)

    def prepare() -> None:
        device.journal.append("prepare")
        host.now += 1.0

    found = bench(device.call, device, Plan(0, 2), prepare=prepare, now=host)
    assert device.journal == ["prepare", "wait", "call", "wait"] * 4
    assert found.wall.max_ms == pytest.approx(3)
    assert found.gpu is not None
    assert found.gpu.max_ms == pytest.approx(2)
    assert found.calls_per_second == pytest.approx(1 / 3e-3)
    assert not found.overlapped


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([25, 50, 90, 99]))
def test_percentiles_are_numpys(values: list[float], percent: float) -> None:
    got = percentile(sorted(values), percent)
    assert got == pytest.approx(float(numpy.percentile(values, percent)))


def test_no_call_is_no_figure() -> None:
    with pytest.raises(ValueError, match="no call was timed"):
        summarize([])
