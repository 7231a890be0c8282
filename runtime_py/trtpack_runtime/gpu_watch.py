# SPDX-License-Identifier: Apache-2.0
"""What NVML tells of this process's GPU: clocks, temperature, power, memory, what slows it down.

Nothing of it is required: a Jetson has little or no NVML, a container may hide it.

Sources: NVML API, ``nvmlDeviceGetClockInfo`` (the numbers of ``nvmlClockType_t``),
``nvmlDeviceGetMemoryInfo``, ``nvmlDeviceGetEnforcedPowerLimit`` (milliwatts),
``nvmlClocksEventReasons`` (called ``...ThrottleReasons`` before driver 535; the bits are the same),
``nvmlProcessInfo_t``; CUDA driver API, ``cuDeviceGetPCIBusId``: NVML does not follow
CUDA_VISIBLE_DEVICES, the bus tells which GPU it is.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any

SLOWED = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal limit of the driver",
    0x40: "thermal limit of the hardware",
    0x80: "power brake",
}
"""The bits of ``nvmlClocksEventReasons`` that slow a GPU against its user's will, as people say
them; the others are idleness (0x01) and settings (0x02, 0x10, 0x100)."""

_SM_CLOCK, _MEMORY_CLOCK = 1, 2
_GPU_TEMPERATURE = 0
_UNKNOWN_SIZE = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE
_PROCESSES = 512
_EVERY_S = 0.05


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _Process(ctypes.Structure):
    _fields_ = [
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


class Gpu:
    """A GPU that CUDA shows to this process, by CUDA's number, as NVML knows it.

    Raises:
        OSError: there is no driver, or it does not tell.
    """

    def __init__(self, cuda: Any = None, nvml: Any = None, index: int = 0) -> None:
        self.bus = bus_of(index, cuda)
        self._nvml = nvml or ctypes.CDLL("libnvidia-ml.so.1")
        self._handle = ctypes.c_void_p()
        _check(self._nvml.nvmlInit_v2())
        handle = ctypes.byref(self._handle)
        _check(self._nvml.nvmlDeviceGetHandleByPciBusId_v2(self.bus.encode(), handle))

    def used_bytes(self) -> int | None:
        """The memory that all programs together use on it."""
        memory = _Memory()
        return int(memory.used) if self._told("MemoryInfo", ctypes.byref(memory)) else None

    def process_bytes(self) -> int | None:
        """The memory that this process uses on it, everything counted; None where NVML does not
        know this process, as in most containers."""
        count, found = ctypes.c_uint(_PROCESSES), (_Process * _PROCESSES)()
        if not self._told("ComputeRunningProcesses_v3", ctypes.byref(count), found):
            return None
        used = [int(p.used) for p in found[: count.value] if p.pid == os.getpid()]
        return used[0] if used and used[0] != _UNKNOWN_SIZE else None

    def sm_mhz(self) -> int | None:
        """The clock of its multiprocessors now."""
        return self._number("ClockInfo", _SM_CLOCK)

    def sm_max_mhz(self) -> int | None:
        """The highest clock of its multiprocessors."""
        return self._number("MaxClockInfo", _SM_CLOCK)

    def memory_mhz(self) -> int | None:
        """The clock of its memory now."""
        return self._number("ClockInfo", _MEMORY_CLOCK)

    def temperature_c(self) -> int | None:
        """Its temperature in degrees Celsius."""
        return self._number("Temperature", _GPU_TEMPERATURE)

    def power_w(self) -> float | None:
        """The watts it takes now."""
        milliwatts = self._number("PowerUsage")
        return None if milliwatts is None else milliwatts / 1000

    def power_limit_w(self) -> int | None:
        """The watts it may take."""
        milliwatts = self._number("EnforcedPowerLimit")
        return None if milliwatts is None else milliwatts // 1000

    def slowed(self) -> tuple[str, ...]:
        """What keeps its clocks down now, of ``SLOWED``."""
        bits = ctypes.c_ulonglong()
        for name in ("CurrentClocksEventReasons", "CurrentClocksThrottleReasons"):
            if self._told(name, ctypes.byref(bits)):
                return reasons(bits.value)
        return ()

    def _number(self, what: str, *which: int) -> int | None:
        value = ctypes.c_uint()
        return value.value if self._told(what, *which, ctypes.byref(value)) else None

    def _told(self, what: str, *arguments: Any) -> bool:
        """Whether NVML has a call and it succeeds."""
        call = getattr(self._nvml, f"nvmlDeviceGet{what}", None)
        return call is not None and call(self._handle, *arguments) == 0


class GpuWatch:
    """Looks at the GPU, by a thread of its own, until it is asked what was seen."""

    def __init__(self, gpu: Gpu | None = None) -> None:
        self._most: dict[str, int] = {}
        self._done = threading.Event()
        try:
            self._gpu: Gpu | None = gpu or Gpu()
        except (OSError, AttributeError):
            self._gpu = None
            return
        self._before = self._gpu.used_bytes()
        threading.Thread(target=self._watch, args=(self._gpu,), daemon=True).start()

    def seen(self) -> dict[str, int]:
        """``sm_mhz``, ``memory_mhz`` and ``power_limit_w``, the highest there were, and
        ``taken_bytes``, by how much more memory than at the beginning was used on the GPU at most;
        without what cannot be known."""
        self._done.set()
        if self._gpu is None:
            return {}
        self._look(self._gpu)
        found = dict(self._most)
        used = found.pop("used_bytes", None)
        if used is not None and self._before is not None:
            found["taken_bytes"] = max(used - self._before, 0)
        return found

    def _watch(self, gpu: Gpu) -> None:
        while not self._done.wait(_EVERY_S):
            self._look(gpu)

    def _look(self, gpu: Gpu) -> None:
        for look in (gpu.sm_mhz, gpu.memory_mhz, gpu.power_limit_w, gpu.used_bytes):
            value = look()
            if value is not None:
                name = look.__name__
                self._most[name] = max(self._most.get(name, 0), value)


def bus_of(index: int = 0, cuda: Any = None) -> str:
    """Where a GPU is, ``0000:3b:00.0``, by CUDA's number; no CUDA context is made.

    Raises:
        OSError: there is no driver, or no such GPU.
    """
    cuda = cuda or ctypes.CDLL("libcuda.so.1")
    device, bus = ctypes.c_int(), ctypes.create_string_buffer(32)
    _check(cuda.cuInit(0))
    _check(cuda.cuDeviceGet(ctypes.byref(device), index))
    _check(cuda.cuDeviceGetPCIBusId(bus, len(bus), device))
    return bus.value.decode(errors="replace")


def reasons(bits: int) -> tuple[str, ...]:
    """The names of what slows a GPU down."""
    return tuple(name for bit, name in SLOWED.items() if bits & bit)


def _check(code: int) -> None:
    if code:
        raise OSError(f"the driver answers {code}")
