# SPDX-License-Identifier: Apache-2.0
"""Holds what a call takes against what it may take at most (``manifest_methods.Limits``)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

FIGURES = ("p50", "p90", "p99", "mean", "max")
"""What of the wall times may be held against a latency limit."""

FIGURE = "p99"
"""What is, unless another is asked for: a limit is a deadline, nearly every call must meet it."""


@dataclass(frozen=True)
class LimitCheck:
    """A limit held against what was measured.

    Args:
        method: whose limit it is.
        name: ``latency`` or ``memory``.
        figure: what was measured: ``p99``, or what kind of memory.
        unit: of both numbers: ``ms`` or ``MB``.
        wants: the most it may be.
        has: what it is; None where it was not measured.
        source: ``bundle`` or ``command line``.
    """

    method: str
    name: str
    figure: str
    unit: str
    wants: float
    has: float | None
    source: str

    @property
    def passed(self) -> bool | None:
        """Whether it is kept; None where it was not measured."""
        return None if self.has is None else self.has <= self.wants

    def text(self) -> str:
        """``p99 12.3 ms, at most 10 ms wanted``."""
        wanted = f"at most {self.wants:g} {self.unit} wanted"
        if self.has is None:
            return f"{self.figure} not measured, {wanted}"
        return f"{self.figure} {self.has:.4g} {self.unit}, {wanted}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the verdict."""
        return {**asdict(self), "passed": self.passed}
