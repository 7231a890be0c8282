# SPDX-License-Identifier: Apache-2.0
"""Whether one of two things is faster, from times that were taken in turns.

What disturbs a machine disturbs both of a round, so it is their ratio that is judged. The interval
is that of the ratios' median by order statistics: it takes nothing for granted of how they are
distributed. It is looked at a fixed few times only, since looking until one likes what one sees
finds something in any noise.

Source: the sign test's interval, Conover, Practical Nonparametric Statistics, 3.2.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

LOOKS = (8, 16, 32, 64)
"""After so many rounds it is decided whether to go on."""
CONFIDENCE = 0.99
"""Of each look, so that with all four a verdict is wrong in 4 of 100 cases at most."""
WORTH = 0.01
"""What is less faster than this is not worth another choice."""

Outcome = Literal["faster", "slower", "alike"]


@dataclass(frozen=True)
class Interval:
    """A ratio of times and, with ``CONFIDENCE``, the bounds of its median."""

    low: float
    middle: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return {"low": self.low, "middle": self.middle, "high": self.high}

    def __str__(self) -> str:
        return f"{self.middle:.3f} ({self.low:.3f} to {self.high:.3f})"


def interval(ratios: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The median of ratios with its bounds; they are all that was seen where that is too little.

    Raises:
        ValueError: there are none.
    """
    ordered = sorted(ratios)
    aside = _aside(len(ordered), confidence)
    return Interval(ordered[aside], statistics.median(ordered), ordered[-1 - aside])


def compare(
    rounds: Callable[[], float], looks: Sequence[int] = LOOKS
) -> tuple[Outcome, Interval, int]:
    """Takes rounds, each a ratio of a candidate's time to another's, until it is clear what it is
    or that it is not worth while: the outcome, the ratio, and how many there were."""
    ratios: list[float] = []
    for look in looks:
        while len(ratios) < look:
            ratios.append(rounds())
        found = interval(ratios)
        if found.high < 1:
            return "faster", found, look
        if found.low > 1:
            return "slower", found, look
        if found.low > 1 - WORTH:
            break
    return "alike", found, look


def _aside(count: int, confidence: float) -> int:
    """How many of the smallest and of the largest are outside the interval."""
    outside, aside = 0.0, -1
    while aside + 1 < (count + 1) // 2:
        outside += 2 * math.comb(count, aside + 1) / 2**count
        if outside > 1 - confidence:
            break
        aside += 1
    return max(aside, 0)
