# SPDX-License-Identifier: Apache-2.0
"""How a module's start went, and whether its engines are there yet."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from .errors import TrtpackError
from .memory_plan import MemoryPlan
from .phases import LoadTimes


@dataclass
class Startup:
    """The start of one module.

    ``times`` are its phases; where engines are loaded in the background, with those of that once it
    is done. ``memory`` is what was predicted and measured. ``error`` is why nothing came of the
    background's work.
    """

    times: LoadTimes = field(default_factory=LoadTimes)
    memory: MemoryPlan | None = None
    error: TrtpackError | None = None
    _pending: threading.Event | None = None

    def begin(self) -> None:
        """Says that engines are still to come."""
        self._pending = threading.Event()

    def finish(self) -> None:
        """Says that no more engines are to come."""
        if self._pending is not None:
            self._pending.set()

    @property
    def ready(self) -> bool:
        """Whether every engine is there that will be."""
        return self._pending is None or self._pending.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is ready, at most ``timeout`` seconds; answers whether it is."""
        return self._pending is None or self._pending.wait(timeout)
