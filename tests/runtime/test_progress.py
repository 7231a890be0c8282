# SPDX-License-Identifier: Apache-2.0
"""What a person sees while an engine is built."""

from __future__ import annotations

import pytest

from trtpack_runtime import progress
from trtpack_runtime.durations import ago, short
from trtpack_runtime.progress import Progress, Watch


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def event(phase: str, step: int, steps: int, parent: str | None = None) -> dict[str, object]:
    return {"phase": phase, "parent": parent, "step": step, "steps": steps}


def test_a_build_that_tells_nothing(clock: Clock) -> None:
    told: list[Progress] = []
    watch = Watch("forward_0", 42, told.append)
    watch.waiting()
    assert told[-1].text() == "waiting for forward_0, which another process builds"
    clock.now += 7
    watch.starts(None)
    assert told[-1].text() == "building forward_0: 42 layers, 0.0 s"
    assert told[-1].begin() == "building forward_0: 42 layers"


def test_the_last_build_says_how_long_it_takes(clock: Clock) -> None:
    told: list[Progress] = []
    watch = Watch("forward_0", 42, told.append)
    watch.starts(60)
    assert told[-1].begin() == "building forward_0: 42 layers, about 60 s"
    clock.now += 20
    watch.event(event("Tactic Selection", 2, 10, "Building"))
    assert told[-1].text() == ("building forward_0: tactic selection 20 %, 20 s, about 40 s left")
    clock.now += 50
    watch.event(event("Tactic Selection", 3, 10, "Building"))
    assert told[-1].text() == "building forward_0: tactic selection 30 %, 70 s"


def test_else_the_pace_of_the_outer_phase_does(clock: Clock) -> None:
    told: list[Progress] = []
    watch = Watch("forward_0", 42, told.append)
    watch.starts(None)
    watch.event(event("Building", 0, 4))
    clock.now += 10
    watch.event(event("Building", 1, 4))
    assert told[-1].remaining == pytest.approx(30)
    clock.now += 5
    watch.event(event("Tactics", 1, 1000, "Building"))
    assert told[-1].remaining == pytest.approx(25)
    watch.event(event("Serialising", 0, 0))
    assert told[-1].fraction is None


def test_nobody_has_to_listen() -> None:
    watch = Watch("forward_0", 42, None)
    watch.starts(1)
    watch.event(event("Building", 0, 4))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (0.94, "0.9 s"),
        (12.4, "12 s"),
        (130, "2 min"),
        (7000, "1.9 h"),
        (-3, "0.0 s"),
    ],
)
def test_lengths_of_time(seconds: float, said: str) -> None:
    assert short(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.5, "just now"), (1, "1 second ago"), (59, "59 seconds ago"), (3700, "1 hour ago"),
     (3 * 86400 + 5, "3 days ago")],
)  # fmt: skip
def test_times_past(seconds: float, said: str) -> None:
    assert ago(seconds) == said
