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
    ``largest`` is the largest magnitude, ``bad`` how many numbers were not finite.
    """

    top: float = 0.0
    largest: float = 0.0
    bad: int = 0
    counts: torch.Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))

    def add(self, value: torch.Tensor) -> None:
        """Takes in a tensor of floating-point numbers."""
        numbers = value.detach().flatten().float().abs()
        finite = numbers.isfinite()
        if not bool(finite.all()):
            self.bad += int((~finite).sum())
            numbers = numbers[finite]
        largest = float(numbers.max()) if numbers.numel() else 0.0
        if largest == 0:
            return
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
    def edges(self) -> torch.Tensor:
        """The upper edge of every bin."""
        return torch.arange(1, BINS + 1, dtype=torch.float64) * (self.top / BINS)

    @property
    def middles(self) -> torch.Tensor:
        """The middle of every bin."""
        return self.edges - self.top / BINS / 2
