# SPDX-License-Identifier: Apache-2.0
"""A machine watched while it works: sensors over a while, and the most memory there was."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from trtpack_runtime.sensors import BELOW_MAXIMUM, Reading
from trtpack_runtime.vitals import MemoryPeaks, Span, Watch, host_peak_bytes, summary

MB = 1_000_000


class Scripted:
    """Sensors that say what the test sets."""

    source, every_s = "NVML", 0.01

    def __init__(self) -> None:
        self.reading, self.taken = Reading({"sm_mhz": 1000.0}), {"used_bytes": 100 * MB}
        self.closed = False

    def limits(self) -> Mapping[str, float]:
        return {"sm_max_mhz": 2000.0}

    def read(self) -> Reading:
        return self.reading

    def memory(self) -> Mapping[str, int]:
        return self.taken

    def close(self) -> None:
        self.closed = True


def meminfo(root: Path, available: int) -> Path:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 8000 kB\nMemAvailable:   {available} kB\n")
    (root / "proc/self/status").write_text("Name:\tx\nVmHWM:\t  2000 kB\nVmRSS:\t 1000 kB\n")
    return root


def test_readings_are_those_of_the_block() -> None:
    sensors = Scripted()
    watch = Watch(sensors)
    with watch.during() as readings:
        time.sleep(0.05)
        sensors.reading = Reading({"sm_mhz": 500.0}, ("power cap",))
    sensors.reading = Reading({"sm_mhz": 1.0})
    time.sleep(0.03)
    found = watch.vitals(readings)
    watch.close()
    assert found is not None
    assert (found.figures["sm_mhz"].min, found.figures["sm_mhz"].max) == (500, 1000)
    assert (found.source, found.limits) == ("NVML", {"sm_max_mhz": 2000})
    assert 0 < found.throttled["power cap"] < 1
    assert found.readings == len(readings) >= 2
    assert sensors.closed
    assert found.to_json()["figures"]["sm_mhz"]["min"] == 500


def test_a_guess_counts_only_where_most_readings_have_it() -> None:
    guessed, fine = Reading({}, (BELOW_MAXIMUM, "power cap")), Reading({"power_w": 4.0})
    assert summary("sysfs", [guessed, fine, fine], {}).throttled == {"power cap": 1 / 3}
    found = summary("sysfs", [guessed, guessed, fine], {})
    assert found.throttled == {BELOW_MAXIMUM: 2 / 3, "power cap": 2 / 3}
    assert found.figures == {"power_w": Span(4, 4, 4)}


def test_gpu_memory_is_by_how_much_its_use_grew() -> None:
    sensors = Scripted()
    watch = Watch(sensors)
    sensors.taken = {"used_bytes": 700 * MB}
    time.sleep(0.05)
    sensors.taken = {"used_bytes": 300 * MB}
    found = watch.memory(True, torch_bytes=50 * MB)
    assert (found.gpu_bytes, found.gpu_source) == (600 * MB, "device")
    assert found.judged == (600 * MB, "GPU memory")
    assert watch.memory(False).judged == (found.host_bytes, "main memory")
    watch.close()


def test_what_built_the_engines_is_not_what_runs_them() -> None:
    sensors = Scripted()
    watch = Watch(sensors)
    sensors.taken = {"used_bytes": 9000 * MB}
    time.sleep(0.05)
    sensors.taken = {"used_bytes": 300 * MB}
    watch.forget()
    assert watch.memory(True).gpu_bytes == 200 * MB
    watch.close()


def test_the_drivers_word_on_this_process_is_better() -> None:
    sensors = Scripted()
    watch = Watch(sensors)
    sensors.taken = {"used_bytes": 900 * MB, "process_bytes": 300 * MB}
    found = watch.memory(True, torch_bytes=50 * MB)
    assert (found.gpu_bytes, found.gpu_source, found.torch_bytes) == (
        300 * MB, "process", 50 * MB,
    )  # fmt: skip
    watch.close()


def test_where_memory_is_shared_the_main_memory_tells(tmp_path: Path) -> None:
    watch = Watch(None, shared=True, root=meminfo(tmp_path, 6000))
    meminfo(tmp_path, 2500)
    found = watch.memory(True)
    assert (found.gpu_bytes, found.gpu_source) == (3500 * 1024, "system")
    assert found.host_bytes == 2000 * 1024
    watch.close()


def test_without_sensors_pytorch_knows_its_own() -> None:
    watch = Watch(None)
    assert watch.memory(True, torch_bytes=5).judged == (5, "GPU memory")
    assert watch.memory(True).judged == (None, "GPU memory")
    assert watch.vitals([]) is None
    watch.close()


def test_the_main_memorys_peak_is_the_systems_word(tmp_path: Path) -> None:
    assert host_peak_bytes(tmp_path) is None
    before = host_peak_bytes()
    assert before is not None
    held = bytearray(64 * MB)
    held[::4096] = b"x" * len(held[::4096])
    after = host_peak_bytes()
    assert after is not None
    assert after >= before
    assert after > 64 * MB
    assert MemoryPeaks(after).to_json()["on_gpu"] is False


@pytest.mark.gpu
def test_a_real_gpu_tells_memory_and_vitals() -> None:
    import torch

    from trtpack_runtime.sensors import sensors_for

    watch = Watch(sensors_for(0))
    with watch.during() as readings:
        kept = torch.zeros(256 << 20, dtype=torch.uint8, device="cuda")
        for _ in range(200):
            kept = kept.sin().to(torch.uint8)
        torch.cuda.synchronize()
    found, vitals = watch.memory(True, torch.cuda.max_memory_allocated()), watch.vitals(readings)
    watch.close()
    assert found.gpu_source in ("process", "device", "system")
    assert found.gpu_bytes is not None
    assert found.gpu_bytes >= 256 << 20
    assert vitals is not None
    assert vitals.figures["sm_mhz"].max > 100
    assert 10 < vitals.figures["temperature_c"].max < 110
