# SPDX-License-Identifier: Apache-2.0
"""Calls on their way: pinned memory for each, and what a caller holds until the result is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .cuda import Cuda
from .memory import Pinned

_SHORT_S, _LONG_S = 50e-6, 1e-3
"""Pauses between looks at an event, where a caller sets a time: the first one, and the longest."""


class Slot:
    """Pinned memory for one call's inputs and outputs, and the event of its end."""

    def __init__(self, cuda: Cuda) -> None:
        self.given, self.results, self.event = Pinned(cuda), Pinned(cuda), cuda.new_event()
        self.pending: SessionFuture | None = None

    def drop(self, cuda: Cuda) -> None:
        """Gives memory and event back."""
        self.given.drop()
        self.results.drop()
        cuda.end_event(self.event)


class SessionFuture:
    """The result of a call that may still be under way.

    Calls come to their end in the order in which they were made.
    """

    def __init__(self, cuda: Cuda, slot: Slot, finish: Callable[[], Any], held: Any) -> None:
        """``finish`` makes the result once the call is over, which reads what is ``held``."""
        self._cuda, self._finish, self._held = cuda, finish, held
        self._slot: Slot | None = slot
        self._lock = threading.Lock()
        self._result: Any = None
        self._error: BaseException | None = None
        slot.pending = self

    def done(self) -> bool:
        """Whether ``result`` would not wait."""
        with self._lock:
            if self._slot is None:
                return True
            self._cuda.use()
            try:
                return self._cuda.happened(self._slot.event)
            except Exception:
                return True  # ``result`` tells what went wrong

    def result(self, timeout: float | None = None) -> Mapping[str, Any]:
        """The outputs by name, as ``Session.run`` answers them.

        Args:
            timeout: the most seconds to wait; without it as long as it takes.

        Raises:
            TimeoutError: the call is not at its end after ``timeout`` seconds.
            DeviceError: the GPU failed.
        """
        if timeout is not None:
            end, pause = time.monotonic() + timeout, _SHORT_S
            while not self.done():
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"the call is not at its end after {timeout} s")
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LONG_S)
        self.settle()
        if self._error is not None:
            raise self._error
        result: Mapping[str, Any] = self._result
        return result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What went wrong, None where nothing did; waits as ``result``."""
        try:
            self.result(timeout)
        except TimeoutError:
            raise
        except Exception as error:
            return error
        return None

    def settle(self) -> None:
        """Waits for the call's end and makes its pinned memory free for another."""
        with self._lock:
            slot = self._slot
            if slot is None:
                return
            try:
                self._cuda.use()
                self._cuda.wait_event(slot.event)
                self._result = self._finish()
            except Exception as error:
                self._error = error
            self._slot, slot.pending = None, None
            del self._finish, self._held


class Staging:
    """As many slots as calls may be under way at once."""

    def __init__(self, cuda: Cuda, count: int) -> None:
        self._cuda, self._count = cuda, count
        self._slots: list[Slot] = []

    def take(self) -> Slot:
        """A free slot; where all are in use, once the oldest call is over."""
        slot = next((s for s in self._slots if s.pending is None), None)
        if slot is None and len(self._slots) < self._count:
            self._slots.append(Slot(self._cuda))
            return self._slots[-1]
        slot = slot or self._slots[0]
        if slot.pending is not None:
            slot.pending.settle()
        self._slots.remove(slot)
        self._slots.append(slot)
        return slot

    def settle(self) -> None:
        """Waits for every call."""
        for slot in self._slots:
            if slot.pending is not None:
                slot.pending.settle()

    def drop(self) -> None:
        """Gives everything back, when no call is under way."""
        for slot in self._slots:
            slot.drop(self._cuda)
        self._slots.clear()
