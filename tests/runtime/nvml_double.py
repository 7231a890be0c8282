# SPDX-License-Identifier: Apache-2.0
"""A double of the driver's libraries: libcuda and NVML in one."""

from __future__ import annotations

from typing import Any

ABSENT = -1


class Driver:
    """Two GPUs whose memory fills by a GB a look.

    ``broken`` gives what a call fails with, ``ABSENT`` for one that the driver does not have.
    """

    def __init__(self, **broken: int) -> None:
        self.broken, self.used, self.asked = broken, 1 << 30, b""
        self.bits = 0
        self.processes: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("cu", "nvml")) or self.broken.get(name) == ABSENT:
            raise AttributeError(name)
        return lambda *arguments: self.broken.get(name) or self._answer(name, *arguments)

    def _answer(self, name: str, *arguments: Any) -> int:
        if name == "cuDeviceGet":
            arguments[0]._obj.value = arguments[1]
        elif name == "cuDeviceGetPCIBusId":
            arguments[0].value = b"0000:3%c:00.0" % b"bc"[arguments[2].value]
        elif name == "nvmlDeviceGetHandleByPciBusId_v2":
            self.asked = arguments[0]
        elif name == "nvmlDeviceGetMemoryInfo":
            arguments[1]._obj.used = self.used
            self.used += 1 << 30
        elif name == "nvmlDeviceGetComputeRunningProcesses_v3":
            arguments[1]._obj.value = len(self.processes)
            for entry, (pid, used) in zip(arguments[2], self.processes):  # noqa: B905 room for more
                entry.pid, entry.used = pid, used
        else:
            self._sensor(name, *arguments)
        return 0

    def _sensor(self, name: str, *arguments: Any) -> None:
        value = arguments[-1]._obj if arguments and hasattr(arguments[-1], "_obj") else None
        match name:
            case "nvmlDeviceGetClockInfo":
                value.value = {1: 1980, 2: 3201}[arguments[1]]
            case "nvmlDeviceGetMaxClockInfo":
                value.value = {1: 2040}[arguments[1]]
            case "nvmlDeviceGetTemperature":
                value.value = {0: 61}[arguments[1]]
            case "nvmlDeviceGetPowerUsage":
                value.value = 312_500
            case "nvmlDeviceGetEnforcedPowerLimit":
                value.value = 700_000
            case (
                "nvmlDeviceGetCurrentClocksEventReasons"
                | "nvmlDeviceGetCurrentClocksThrottleReasons"
            ):
                value.value = self.bits
