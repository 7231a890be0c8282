# SPDX-License-Identifier: Apache-2.0
"""Times what a session gives its stream, by CUDA's events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..errors import TrtpackError
from .cuda import Cuda


class Moment:
    """A timed event on a stream, given back with this object."""

    def __init__(self, cuda: Cuda, stream: Any) -> None:
        self._cuda, self.event = cuda, cuda.new_event(timed=True)
        cuda.record(self.event, stream)

    def __del__(self) -> None:
        if hasattr(self, "event"):
            with suppress(TrtpackError):  # after a fault the GPU takes nothing back
                self._cuda.end_event(self.event)


class StreamClock:
    """A ``clocks.Clock`` of one stream; ``settle`` waits for every result."""

    asynchronous = True

    def __init__(self, cuda: Cuda, stream: Any, settle: Callable[[], None]) -> None:
        self._cuda, self._stream, self._settle = cuda, stream, settle

    def mark(self) -> Moment:
        """A moment between two pieces of work."""
        self._cuda.use()
        return Moment(self._cuda, self._stream)

    def wait(self) -> None:
        """Until the stream has done everything and the results are the host's."""
        self._settle()

    def elapsed_ms(self, begin: Moment, end: Moment) -> float:
        """Milliseconds between two moments."""
        return self._cuda.elapsed_ms(begin.event, end.event)
