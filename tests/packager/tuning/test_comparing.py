# SPDX-License-Identifier: Apache-2.0
"""Verdicts over times that are taken in turns: rarely wrong, and no longer than it needs."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from trtpack.tuning.comparing import LOOKS, compare, interval


def noisy(middle: float, seed: int, noise: float = 0.2) -> Callable[[], float]:
    """Ratios with noise, one in ten of them disturbed on one side or the other."""
    random_ = random.Random(seed)

    def one() -> float:
        ratio = middle * random_.lognormvariate(0, noise)
        return ratio * random_.choice((0.2, 5.0)) if random_.random() < 0.1 else ratio

    return one


def test_bounds_are_order_statistics() -> None:
    """Of ten, the smallest and the largest bound the median at 99.8 %, their neighbours at 97.9."""
    ratios = [float(n) for n in range(1, 11)]
    assert interval(ratios).to_json() == {"low": 1.0, "middle": 5.5, "high": 10.0}
    assert interval(ratios, 0.97).to_json() == {"low": 2.0, "middle": 5.5, "high": 9.0}
    assert interval([2.0]).to_json() == {"low": 2.0, "middle": 2.0, "high": 2.0}


@pytest.mark.parametrize(("middle", "outcome"), [(0.5, "faster"), (2.0, "slower")])
def test_what_is_clear_is_told_at_the_first_look(middle: float, outcome: str) -> None:
    assert compare(lambda: middle)[::2] == (outcome, LOOKS[0])


def test_what_cannot_win_enough_is_not_measured_further() -> None:
    random_ = random.Random(0)
    outcome, _, rounds = compare(lambda: random_.uniform(0.995, 1.01))
    assert (outcome, rounds) == ("alike", LOOKS[0])


def test_equals_are_rarely_told_apart() -> None:
    told = [compare(noisy(1.0, seed))[0] for seed in range(400)]
    assert sum(outcome != "alike" for outcome in told) <= 16  # 4 of 100


def test_a_gain_is_found_in_noise_that_is_larger() -> None:
    told = [compare(noisy(0.8, seed, 0.3))[0] for seed in range(100)]
    assert told.count("faster") >= 90
    assert "slower" not in told
