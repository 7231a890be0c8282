# SPDX-License-Identifier: Apache-2.0
"""What is seen of a GPU while TensorRT works: NVML asked by bus, and nothing required of it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from trtpack_runtime.gpu_watch import Gpu, GpuWatch

ABSENT = -1


class Driver:
    """libcuda and NVML in one, of a GPU whose memory fills by a GB a look."""

    def __init__(self, **broken: int) -> None:
        self.broken, self.used, self.asked = broken, 1 << 30, b""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("cu", "nvml")) or self.broken.get(name) == ABSENT:
            raise AttributeError(name)
        return lambda *arguments: self.broken.get(name) or self._answer(name, *arguments)

    def _answer(self, name: str, *arguments: Any) -> int:
        if name == "cuDeviceGetPCIBusId":
            arguments[0].value = b"0000:3b:00.0"
        elif name == "nvmlDeviceGetHandleByPciBusId_v2":
            self.asked = arguments[0].value
        elif name == "nvmlDeviceGetMemoryInfo":
            arguments[1]._obj.used = self.used
            self.used += 1 << 30
        elif name == "nvmlDeviceGetClockInfo":
            arguments[2]._obj.value = {1: 1980, 2: 3201}[arguments[1]]
        elif name == "nvmlDeviceGetEnforcedPowerLimit":
            arguments[1]._obj.value = 700_000
        return 0


def test_clocks_and_memory_of_the_gpu_of_this_process_are_seen() -> None:
    driver = Driver()
    watch = GpuWatch(Gpu(driver, driver))
    time.sleep(0.2)
    seen = watch.seen()
    assert driver.asked == b"0000:3b:00.0"
    assert seen.pop("taken_bytes") >= 2 << 30
    assert seen == {"sm_mhz": 1980, "memory_mhz": 3201, "power_limit_w": 700}


def test_what_nvml_does_not_tell_is_left_out() -> None:
    driver = Driver(nvmlDeviceGetMemoryInfo=3, nvmlDeviceGetEnforcedPowerLimit=ABSENT)
    assert GpuWatch(Gpu(driver, driver)).seen() == {"sm_mhz": 1980, "memory_mhz": 3201}


def test_without_a_gpu_nothing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(nvmlInit_v2=12)
    with pytest.raises(OSError, match="the driver answers 12"):
        Gpu(driver, driver)
    monkeypatch.setattr("ctypes.CDLL", lambda name: driver)
    assert GpuWatch().seen() == {}
