# SPDX-License-Identifier: Apache-2.0
"""Counts the magnitudes of a value's numbers over all samples, in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

BINS = 2048


@dataclass
class Histogram:
    """Magnitudes between 0 and ``top`` in ``BINS`` equal bins; ``top`` doubles as numbers need it.

    Zeros are left out: they are exact in every scale, and after a ReLU they would outvote the rest.
    ``largest`` is the largest magnitude, ``bad`` how many numbers were not finite. ``low`` and
    ``high`` are the least and the greatest finite number, with their signs.
    """

    top: float = 0.0
    largest: float = 0.0
    bad: int = 0
    counts: torch.Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: torch.Tensor) -> None:
        """Takes in a tensor of floating-point numbers."""
        signed = value.detach().flatten().float()
        finite = signed.isfinite()
        if not bool(finite.all()):
            self.bad += int((~finite).sum())
            signed = signed[finite]
        if not signed.numel():
            return
        low, high = (float(end) for end in signed.aminmax())
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-low, high)
        if largest == 0:
            return
        numbers = signed.abs()
        self.largest = max(self.largest, largest)
        self._widen(largest)
        found = torch.histc(numbers[numbers > 0], BINS, 0.0, self.top)
        self.counts += found.double().cpu()

    def _widen(self, largest: float) -> None:
        if self.top == 0:
            self.top = largest
            return
        if largest <= self.top:
            return
        doublings = math.ceil(math.log2(largest / self.top))
        self.top = math.ldexp(self.top, doublings)
        group = min(BINS, 2**doublings)
        merged = self.counts.reshape(-1, group).sum(1)
        self.counts = torch.zeros_like(self.counts)
        self.counts[: len(merged)] = merged

    @property
    def constant(self) -> float | None:
        """The one number that all of them are, or None."""
        return self.low if self.low == self.high else None

    @property
    def edges(self) -> torch.Tensor:
        """The upper edge of every bin."""
        return torch.arange(1, BINS + 1, dtype=torch.float64) * (self.top / BINS)

    @property
    def middles(self) -> torch.Tensor:
        """The middle of every bin."""
        return self.edges - self.top / BINS / 2
