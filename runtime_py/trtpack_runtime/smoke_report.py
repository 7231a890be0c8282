# SPDX-License-Identifier: Apache-2.0
"""What a replay of golden samples found, and by which bounds it is judged; without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .errors import SmokeFailure

Tolerance = Mapping[str, Any]
DEFAULT_TOLERANCE: Mapping[str, Tolerance] = {
    "float64": {"rel_l2": 1e-4, "cosine": 0.999},
    "float32": {"rel_l2": 1e-3, "cosine": 0.999},
    "float16": {"rel_l2": 2e-2, "cosine": 0.999},
    "bfloat16": {"rel_l2": 5e-2, "cosine": 0.99},
}
"""What an output without a tolerance of its own is judged by; other types by equality."""


@dataclass(frozen=True)
class Metrics:
    """How far an output is from the stored one; ``differing`` counts elements not equal."""

    max_abs: float
    rel_l2: float
    cosine: float
    differing: int
    elements: int


@dataclass(frozen=True)
class Comparison:
    """One output of one sample, judged; ``failure`` is None or says which bound does not hold."""

    sample: str
    output: str
    dtype: str
    metrics: Metrics | None
    failure: str | None

    @property
    def is_float(self) -> bool:
        """Whether errors of size matter, not only equality."""
        return self.dtype.startswith(("float", "bfloat", "complex"))

    @property
    def badness(self) -> float:
        """How far off it is, for ranking: 0 is perfect, infinite without anything to compare."""
        metrics = self.metrics
        if metrics is None:
            return math.inf
        if not self.is_float:
            return metrics.differing / max(metrics.elements, 1)
        return max(metrics.rel_l2, 1 - metrics.cosine)

    def to_json(self) -> dict[str, Any]:
        """Plain values; figures that are not finite as strings."""
        metrics = None if self.metrics is None else asdict(self.metrics)
        for name, value in (metrics or {}).items():
            if not math.isfinite(value):
                metrics = {**(metrics or {}), name: repr(value)}
        return {**asdict(self), "metrics": metrics}


@dataclass(frozen=True)
class Departure:
    """The first segment, ``number`` of ``count``, that answers something else.

    ``kind`` is that of its engine, ``layers`` what it is of, ``value`` the tensor that is wrong and
    ``reason`` how. ``passes_in_pytorch``: everything is right once PyTorch runs it.
    """

    segment: str
    number: int
    count: int
    kind: str
    layers: str
    value: str
    reason: str
    passes_in_pytorch: bool = False

    @property
    def told(self) -> str:
        """As a clause."""
        text = (
            f"segment {self.number} of {self.count} ({self.segment}, {self.kind}: {self.layers}) "
            f"is the first that departs: {self.reason}"
        )
        return f"{text}; in PyTorch it is right" if self.passes_in_pytorch else text


@dataclass(frozen=True)
class SmokeReport:
    """All outputs of all samples; ``departures`` are the segments to blame, where outputs were
    wrong and the bundle tells enough."""

    comparisons: tuple[Comparison, ...]
    departures: tuple[Departure, ...] = ()

    def __add__(self, other: SmokeReport) -> SmokeReport:
        departures = self.departures + other.departures
        return SmokeReport(self.comparisons + other.comparisons, departures)

    @property
    def passed(self) -> bool:
        """Whether every output is within its tolerance."""
        return not self.failed

    @property
    def failed(self) -> tuple[Comparison, ...]:
        """The outputs outside their tolerance."""
        return tuple(c for c in self.comparisons if c.failure is not None)

    @property
    def worst(self) -> Comparison | None:
        """The output furthest off: a failed one if there is any."""
        return max(self.failed or self.comparisons, key=lambda c: c.badness, default=None)

    def raise_for_failure(self) -> None:
        """Raises SmokeFailure that names the worst output, if any output failed."""
        worst = self.worst
        if self.passed or worst is None:
            return
        told = "".join(f"; {one.told}" for one in self.departures[:1])
        raise SmokeFailure(
            f"{len(self.failed)} of {len(self.comparisons)} outputs wrong, worst is "
            f"{worst.output!r} of {worst.sample}: {worst.failure}{told}",
            hint="build again for this device, or run with --verbose to see every output",
        )


def broken_bound(metrics: Metrics, bounds: Tolerance) -> str | None:
    """Which bound figures break, as a clause; None where they hold."""
    if bounds.get("equal") and metrics.differing:
        return f"{metrics.differing} of {metrics.elements} elements differ, none may"
    for name, text, value in (
        ("rel_l2", "relative L2 error", metrics.rel_l2),
        ("max_abs", "largest absolute error", metrics.max_abs),
    ):
        if bounds.get(name) is not None and not value <= bounds[name]:
            return f"{text} {value:.3g}, at most {bounds[name]:g} is allowed"
    if bounds.get("cosine") is not None and not metrics.cosine >= bounds["cosine"]:
        return f"cosine similarity {metrics.cosine:.6f}, at least {bounds['cosine']:g} is wanted"
    return None


def ratio(error: float, size: float) -> float:
    """An error beside the size of what it is an error of: infinite beside nothing."""
    if error == 0:
        return 0.0
    return error / size if size else math.inf
