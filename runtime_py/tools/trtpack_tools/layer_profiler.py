# SPDX-License-Identifier: Apache-2.0
"""The time of every layer of a TensorRT engine, as its ``IProfiler`` reports it.

While a profiler is there TensorRT runs layer by layer and waits for each call's end, so the layers
together take longer than the engine does without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class LayerTimes:
    """What a profiler was told since it was last asked: layer names and milliseconds, in order."""

    def __init__(self) -> None:
        self._told: list[tuple[str, float]] = []

    def tell(self, name: str, ms: float) -> None:
        """Takes the time of one layer."""
        self._told.append((name, ms))

    def take(self) -> list[tuple[str, float]]:
        """The times since the last call."""
        told, self._told = self._told, []
        return told


@contextmanager
def profiled(trt: Any, runner: Any) -> Iterator[LayerTimes]:
    """Has a loaded engine report its layers' times until the block ends.

    ``runner`` is an ``EngineRunner``; the execution contexts it has by now are watched, so it shall
    have run with the same shapes before.
    """
    times = LayerTimes()
    profiler = _profiler(trt, times)
    contexts = list(runner.contexts)
    for context in contexts:
        context.profiler = profiler
    try:
        yield times
    finally:
        for context in contexts:
            context.profiler = None


def _profiler(trt: Any, times: LayerTimes) -> Any:
    class Profiler(trt.IProfiler):
        """Must be kept as long as a context has it."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.tell(layer_name, ms)

    return Profiler()
