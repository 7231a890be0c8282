# SPDX-License-Identifier: Apache-2.0
"""Watches a machine while it runs: its sensors over a while, and the most memory that was taken."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .sensors import BELOW_MAXIMUM, Reading, Sensors

_MOSTLY = 0.5


@dataclass(frozen=True)
class Span:
    """The least, mean and most of a figure over the readings that had it."""

    min: float
    mean: float
    max: float


@dataclass(frozen=True)
class Vitals:
    """What the sensors said during some work.

    Args:
        source: what was asked.
        readings: how often.
        figures: by name with its unit: ``sm_mhz``, ``memory_mhz``, ``temperature_c``, ``power_w``,
            ``load_percent``.
        limits: ``sm_max_mhz`` and ``power_limit_w``, where known.
        throttled: reason → the part of the readings (above 0, at most 1) that gave it.
    """

    source: str
    readings: int
    figures: Mapping[str, Span]
    limits: Mapping[str, float]
    throttled: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "limits": dict(self.limits), "throttled": dict(self.throttled)}


@dataclass(frozen=True)
class MemoryPeaks:
    """The most memory that this process took, in bytes.

    Args:
        host_bytes: main memory that was resident; None where the system does not say.
        on_gpu: whether a GPU ran the model.
        gpu_bytes: GPU memory, where known. Where the GPU shares the main memory it is that.
        gpu_source: how it was found. ``process``: the driver's count for this process;
            ``device``: by how much the GPU's memory in use grew, other programs' with it;
            ``system``: by how much the main memory that is available shrank; ``torch``: PyTorch's
            own tensors alone, because nothing else tells.
        torch_bytes: what PyTorch's tensors took on the GPU.
    """

    host_bytes: int | None
    on_gpu: bool = False
    gpu_bytes: int | None = None
    gpu_source: str | None = None
    torch_bytes: int | None = None

    @property
    def judged(self) -> tuple[int | None, str]:
        """What a memory limit is held against, and its name: the GPU's memory where a GPU ran the
        model, else the main memory."""
        if self.on_gpu:
            return self.gpu_bytes, "GPU memory"
        return self.host_bytes, "main memory"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Watch:
    """Asks sensors from a thread of its own; begin it before anything is loaded.

    Args:
        sensors: what to ask; None watches the main memory only.
        shared: whether the GPU shares the main memory.
        root: where system files are.
    """

    def __init__(
        self, sensors: Sensors | None, *, shared: bool = False, root: Path = Path("/")
    ) -> None:
        self._sensors, self._shared, self._root = sensors, shared, root
        self._lock, self._over = threading.Lock(), threading.Event()
        self._readings: list[Reading] | None = None
        self._used = self._own = 0
        self._before = self._now()
        if sensors is not None or shared:
            threading.Thread(target=self._run, daemon=True).start()

    @contextmanager
    def during(self) -> Iterator[list[Reading]]:
        """Gathers readings while the block runs, one when it ends at least; see ``vitals``."""
        gathered: list[Reading] = []
        with self._lock:
            self._readings = gathered
        try:
            yield gathered
        finally:
            self._look()
            with self._lock:
                self._readings = None

    @property
    def of_machine(self) -> bool:
        """Whether the sensors tell of the whole machine, not of one GPU alone."""
        return self._sensors is not None and self._sensors.source in ("sysfs", "tegrastats")

    def vitals(self, readings: list[Reading]) -> Vitals | None:
        """What the readings of a block come to; None without sensors."""
        if self._sensors is None:
            return None
        return summary(self._sensors.source, readings, self._sensors.limits())

    def forget(self) -> None:
        """Leaves out what was in use until now, as when other processes built engines."""
        with self._lock:
            self._used = self._now() or 0

    def memory(self, on_gpu: bool, torch_bytes: int | None = None) -> MemoryPeaks:
        """The most there was until now.

        Args:
            on_gpu: whether a GPU ran the model.
            torch_bytes: what PyTorch knows of its own tensors there.
        """
        self._look()
        host = host_peak_bytes(self._root)
        if not on_gpu:
            return MemoryPeaks(host)
        least = torch_bytes or 0
        if self._own:
            return MemoryPeaks(host, True, max(self._own, least), "process", torch_bytes)
        if self._before is not None:
            taken = max(self._used - self._before, least)
            return MemoryPeaks(
                host, True, taken, "system" if self._shared else "device", torch_bytes
            )
        return MemoryPeaks(host, True, torch_bytes, "torch" if torch_bytes else None, torch_bytes)

    def close(self) -> None:
        """Ends the thread and what the sensors keep open."""
        self._over.set()
        if self._sensors is not None:
            self._sensors.close()

    def _run(self) -> None:
        every = self._sensors.every_s if self._sensors is not None else 0.1
        while not self._over.wait(every):
            self._look()

    def _look(self) -> None:
        with self._lock:
            reading = self._sensors.read() if self._sensors is not None else None
            if reading is not None and self._readings is not None:
                self._readings.append(reading)
            self._used = max(self._used, self._now() or 0)

    def _now(self) -> int | None:
        """Bytes in use, of the GPU's memory or of the main memory that it shares."""
        if self._shared:
            available = _kibibytes(self._root / "proc/meminfo", "MemAvailable")
            total = _kibibytes(self._root / "proc/meminfo", "MemTotal")
            return None if available is None or total is None else total - available
        told = self._sensors.memory() if self._sensors is not None else {}
        self._own = max(self._own, told.get("process_bytes", 0))
        return told.get("used_bytes")


def summary(source: str, readings: list[Reading], limits: Mapping[str, float]) -> Vitals:
    """What readings come to."""
    values: dict[str, list[float]] = {}
    for reading in readings:
        for name, value in reading.numbers.items():
            values.setdefault(name, []).append(value)
    counted = Counter(reason for reading in readings for reason in set(reading.throttled))
    shares = {reason: count / len(readings) for reason, count in counted.items()}
    if shares.get(BELOW_MAXIMUM, 1.0) < _MOSTLY:
        del shares[BELOW_MAXIMUM]
    figures = {k: Span(min(v), sum(v) / len(v), max(v)) for k, v in values.items()}
    return Vitals(source, len(readings), figures, limits, dict(sorted(shares.items())))


def host_peak_bytes(root: Path = Path("/")) -> int | None:
    """The most main memory that was resident for this process since it began."""
    return _kibibytes(root / "proc/self/status", "VmHWM")


def _kibibytes(path: Path, key: str) -> int | None:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    match = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None
