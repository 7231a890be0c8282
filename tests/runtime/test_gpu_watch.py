# SPDX-License-Identifier: Apache-2.0
"""What is seen of a GPU: NVML asked by bus, and nothing required of it."""

from __future__ import annotations

import os
import time

import pytest

from tests.runtime.nvml_double import ABSENT, Driver
from trtpack_runtime.gpu_watch import SLOWED, Gpu, GpuWatch, reasons


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


def test_another_gpu_is_asked_for_by_its_number() -> None:
    driver = Driver()
    assert Gpu(driver, driver, index=1).bus == "0000:3c:00.0"
    assert driver.asked == b"0000:3c:00.0"


def test_sensors_have_their_units() -> None:
    driver = Driver()
    gpu = Gpu(driver, driver)
    assert (gpu.temperature_c(), gpu.power_w(), gpu.sm_max_mhz()) == (61, 312.5, 2040)


@pytest.mark.parametrize("missing", ["", "nvmlDeviceGetCurrentClocksEventReasons"])
def test_what_slows_it_is_named_by_old_and_new_drivers(missing: str) -> None:
    driver = Driver(**({missing: ABSENT} if missing else {}))
    driver.bits = 0x01 | 0x04 | 0x40
    gpu = Gpu(driver, driver)
    assert gpu.slowed() == ("power cap", "thermal limit of the hardware")


def test_idleness_and_settings_are_no_throttling() -> None:
    assert reasons(0x01 | 0x02 | 0x10 | 0x100) == ()
    assert reasons(2**64 - 1) == tuple(SLOWED.values())


def test_the_memory_of_this_process_is_found_among_others() -> None:
    driver = Driver()
    driver.processes = [(1, 5 << 30), (os.getpid(), 3 << 30)]
    assert Gpu(driver, driver).process_bytes() == 3 << 30
    driver.processes = [(os.getpid(), 2**64 - 1)]  # NVML_VALUE_NOT_AVAILABLE
    assert Gpu(driver, driver).process_bytes() is None
    driver.processes = [(1, 5 << 30)]  # in a container pids are others
    assert Gpu(driver, driver).process_bytes() is None
