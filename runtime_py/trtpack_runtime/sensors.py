# SPDX-License-Identifier: Apache-2.0
"""What a machine's sensors say while it works: clocks, temperature, power, and what slows it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .gpu_watch import Gpu, bus_of, reasons

BELOW_MAXIMUM = "clock below its maximum while busy"
"""A guess, made where a machine does not tell its reasons: a clock that is still rising looks the
same, so it counts only where most readings have it."""


@dataclass(frozen=True)
class Reading:
    """One look: any of ``sm_mhz``, ``memory_mhz``, ``temperature_c``, ``power_w`` and
    ``load_percent``, and what slows the machine down now."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    throttled: tuple[str, ...] = ()


class Sensors(Protocol):
    """Something that can be asked again and again."""

    @property
    def source(self) -> str:
        """What is asked: ``NVML``, ``nvidia-smi``, ``sysfs`` or ``tegrastats``."""

    @property
    def every_s(self) -> float:
        """How often it may be asked."""

    def limits(self) -> Mapping[str, float]:
        """What does not change: ``sm_max_mhz``, ``power_limit_w``, where known."""

    def read(self) -> Reading:
        """What the sensors say now."""

    def memory(self) -> Mapping[str, int]:
        """GPU memory in bytes: ``used_bytes`` by all programs, ``process_bytes`` by this one."""

    def close(self) -> None:
        """Ends what asking needed."""


class NvmlSensors:
    """NVML's word on a GPU."""

    source, every_s = "NVML", 0.1

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def limits(self) -> Mapping[str, float]:
        """``sm_max_mhz`` and ``power_limit_w``."""
        return _known(sm_max_mhz=self._gpu.sm_max_mhz(), power_limit_w=self._gpu.power_limit_w())

    def read(self) -> Reading:
        """What the sensors say now."""
        gpu = self._gpu
        numbers = _known(
            sm_mhz=gpu.sm_mhz(),
            memory_mhz=gpu.memory_mhz(),
            temperature_c=gpu.temperature_c(),
            power_w=gpu.power_w(),
        )
        return Reading(numbers, gpu.slowed())

    def memory(self) -> Mapping[str, int]:
        """The GPU's memory in use."""
        own, used = self._gpu.process_bytes(), self._gpu.used_bytes()
        return {k: v for k, v in (("process_bytes", own), ("used_bytes", used)) if v is not None}

    def close(self) -> None:
        """Nothing is kept open."""


class SmiSensors:
    """``nvidia-smi``'s word on a GPU, where NVML itself cannot be called.

    Args:
        bus: where the GPU is, ``0000:3b:00.0``.
        command: the program.

    Raises:
        OSError: it cannot be started, or knows no such GPU.
    """

    source, every_s = "nvidia-smi", 0.5
    _FRESH_S = 0.25  # one answer serves figures and memory
    _FIELDS = (
        "clocks.sm", "clocks.mem", "clocks.max.sm", "temperature.gpu", "power.draw",
        "power.limit", "memory.used", "clocks_throttle_reasons.active",
    )  # fmt: skip
    _NAMES = ("sm_mhz", "memory_mhz", "sm_max_mhz", "temperature_c", "power_w", "power_limit_w")

    def __init__(self, bus: str, command: Sequence[str] = ("nvidia-smi",)) -> None:
        self._ask = [*command, "-i", bus, "--format=csv,noheader,nounits",
                     f"--query-gpu={','.join(self._FIELDS)}"]  # fmt: skip
        self._answer: tuple[float, list[str]] = (float("-inf"), [])
        if not self._cells():
            raise OSError(f"nvidia-smi knows no GPU at {bus}")

    def limits(self) -> Mapping[str, float]:
        """``sm_max_mhz`` and ``power_limit_w``."""
        found = self._numbers(self._cells())
        return {k: v for k, v in found.items() if k in ("sm_max_mhz", "power_limit_w")}

    def read(self) -> Reading:
        """What the sensors say now."""
        cells = self._cells()
        found = self._numbers(cells)
        numbers = {k: v for k, v in found.items() if k not in ("sm_max_mhz", "power_limit_w")}
        bits = cells[-1] if cells else ""
        return Reading(numbers, reasons(int(bits, 16)) if bits.startswith("0x") else ())

    def memory(self) -> Mapping[str, int]:
        """The GPU's memory in use by all programs."""
        cells = self._cells()
        return {"used_bytes": int(cells[6]) << 20} if cells and cells[6].isdigit() else {}

    def close(self) -> None:
        """Nothing is kept open."""

    def _numbers(self, cells: Sequence[str]) -> dict[str, float]:
        found = {}
        for name, cell in zip(self._NAMES, cells):  # noqa: B905 the last cells are no such numbers
            try:
                found[name] = float(cell)
            except ValueError:  # "[N/A]"
                continue
        return found

    def _cells(self) -> list[str]:
        if time.monotonic() - self._answer[0] > self._FRESH_S:
            self._answer = time.monotonic(), self._asked()
        return self._answer[1]

    def _asked(self) -> list[str]:
        try:
            done = subprocess.run(
                self._ask, capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return []
        cells = [cell.strip() for cell in done.stdout.strip().split(",")]
        return cells if done.returncode == 0 and len(cells) == len(self._FIELDS) else []


def sensors_for(gpu: int | None, root: Path = Path("/")) -> Sensors | None:
    """What can be asked on this machine, None where nothing can.

    Args:
        gpu: CUDA's number of the GPU that works, None where none does.
        root: where system files are.
    """
    from .jetson_sensors import JetsonSensors, Tegrastats

    if (root / "etc/nv_tegra_release").is_file():
        return _first(lambda: JetsonSensors(root), Tegrastats)
    if gpu is None:
        return None
    return _first(lambda: NvmlSensors(Gpu(index=gpu)), lambda: SmiSensors(bus_of(gpu)))


def _first(*makers: Any) -> Sensors | None:
    for make in makers:
        try:
            made: Sensors = make()
        except (OSError, AttributeError):
            continue
        return made
    return None


def _known(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
