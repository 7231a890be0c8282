# SPDX-License-Identifier: Apache-2.0
"""Measures how long work takes, on the host or on a GPU. PyTorch is imported only to be used."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Clock(Protocol):
    """Measures work on a device."""

    @property
    def asynchronous(self) -> bool:
        """Whether a call returns before its work is done."""

    def mark(self) -> Any:
        """A moment between two pieces of work."""

    def wait(self) -> None:
        """Until everything is done, so that moments can be compared."""

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Milliseconds between two moments."""


class HostClock:
    """For work that is done when its call returns."""

    asynchronous = False

    def mark(self) -> float:
        """Seconds on the host."""
        return time.perf_counter()

    def wait(self) -> None:
        """Nothing is left to do."""

    def elapsed_ms(self, begin: float, end: float) -> float:
        """Milliseconds between two moments."""
        return (end - begin) * 1e3


class DeviceClock:
    """For work that a GPU does after its call has returned, on PyTorch's current stream."""

    asynchronous = True

    def __init__(self, device: torch.device | None = None) -> None:
        import torch

        self._cuda, self._device = torch.cuda, device

    def mark(self) -> Any:
        """An event on the current stream."""
        event: Any = self._cuda.Event(enable_timing=True)
        event.record(self._cuda.current_stream(self._device))
        return event

    def wait(self) -> None:
        """Until the GPU is done."""
        self._cuda.synchronize(self._device)

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Milliseconds between two events."""
        return float(begin.elapsed_time(end))


def clock_of(device: torch.device) -> Clock:
    """What measures work on a device."""
    return DeviceClock(device) if device.type == "cuda" else HostClock()
