# SPDX-License-Identifier: Apache-2.0
"""Clocks of host and GPU."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trtpack_runtime.bench import Plan, bench
from trtpack_runtime.clocks import DeviceClock, HostClock, clock_of


class Cuda:
    """As much of ``torch.cuda`` as a clock takes: work is done 2 ms after it was asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.now_ms, self.journal = device, 0.0, list[str]()
        self.stream = object()

    def current_stream(self, device: torch.device) -> object:
        assert device == self.device
        return self.stream

    def synchronize(self, device: torch.device) -> None:
        assert device == self.device
        self.journal.append("wait")

    def Event(self, *, enable_timing: bool) -> Any:
        assert enable_timing, "events without timing tell no time"
        event = SimpleNamespace(at=None)

        def record(stream: object) -> None:
            assert stream is self.stream
            event.at = self.now_ms

        event.record = record
        event.elapsed_time = lambda end: end.at - event.at
        return event


def test_a_gpus_own_events_on_the_callers_stream_tell_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = torch.device("cuda:1")
    cuda = Cuda(device)
    monkeypatch.setattr(torch, "cuda", cuda)
    clock = clock_of(device)
    assert isinstance(clock, DeviceClock)

    def call() -> None:
        cuda.now_ms += 2.0

    found = bench(call, clock, Plan(1, 10))
    assert found.gpu is not None
    assert (found.gpu.calls, found.gpu.min_ms, found.gpu.max_ms) == (10, 2.0, 2.0)
    assert len(cuda.journal) == 1 + 10 + 2  # warm-up, wall, and 8 and 2 that follow one another


def test_the_hosts_time_is_in_milliseconds() -> None:
    clock = clock_of(torch.device("cpu"))
    assert isinstance(clock, HostClock)
    begin = clock.mark()
    time.sleep(0.01)
    clock.wait()
    assert 9 < clock.elapsed_ms(begin, clock.mark()) < 5000


@pytest.mark.gpu
def test_a_real_gpus_events_and_the_hosts_time_agree() -> None:
    a = torch.randn(2048, 2048, device="cuda")
    found = bench(lambda: [a @ a for _ in range(20)], DeviceClock(), Plan(repeats=40))
    assert found.gpu is not None
    assert found.gpu.p50_ms == pytest.approx(found.wall.p50_ms, rel=0.3)
    assert found.calls_per_second == pytest.approx(1e3 / found.gpu.p50_ms, rel=0.3)
