# SPDX-License-Identifier: Apache-2.0
"""Sensors of a GPU and of a Jetson, asked of doubles, programs and folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.runtime.nvml_double import Driver
from trtpack_runtime.gpu_watch import Gpu
from trtpack_runtime.jetson_sensors import JetsonSensors, Tegrastats, parse_tegrastats
from trtpack_runtime.sensors import BELOW_MAXIMUM, NvmlSensors, SmiSensors, sensors_for

ORIN_NX: Mapping[str, str] = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1",
    "sys/class/devfreq/17000000.gpu/device/of_node/name": "gpu\0",
    "sys/class/devfreq/17000000.gpu/device/load": "996\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "918000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "918000000\n",
    "sys/class/devfreq/15340000.vic/device/of_node/name": "vic\0",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "52437\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "49156\n",
    "sys/class/thermal/thermal_zone2/type": "tj-thermal\n",
    "sys/class/thermal/thermal_zone2/temp": "52437\n",
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/class/thermal/cooling_device7/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device7/cur_state": "3\n",
    "sys/class/thermal/cooling_device8/type": "gpu-throttle-alert\n",
    "sys/class/thermal/cooling_device8/cur_state": "0\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "4984\n",
    "sys/class/hwmon/hwmon1/curr1_input": "2500\n",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon1/in2_input": "4984\n",
    "sys/class/hwmon/hwmon1/curr2_input": "1200\n",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "813\n",
}


def folder(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def program(path: Path, lines: str) -> str:
    path.write_text(f"#!{sys.executable}\n{lines}")
    path.chmod(0o755)
    return str(path)


def test_nvml_tells_figures_limits_and_memory() -> None:
    driver = Driver()
    driver.bits = 0x20
    driver.processes = [(os.getpid(), 7 << 20)]
    sensors = NvmlSensors(Gpu(driver, driver))
    assert sensors.limits() == {"sm_max_mhz": 2040, "power_limit_w": 700}
    found = sensors.read()
    assert found.numbers == {
        "sm_mhz": 1980, "memory_mhz": 3201, "temperature_c": 61, "power_w": 312.5,
    }  # fmt: skip
    assert found.throttled == ("thermal limit of the driver",)
    assert sensors.memory() == {"process_bytes": 7 << 20, "used_bytes": 1 << 30}


def test_nvidia_smi_tells_what_nvml_would(tmp_path: Path) -> None:
    line = "1980, 2619, 2040, 61, [N/A], 700.00, 1024, 0x0000000000000044"
    ask = program(
        tmp_path / "smi",
        f"import sys\nassert sys.argv[2] == '0000:3b:00.0', sys.argv\nprint({line!r})\n",
    )
    sensors = SmiSensors("0000:3b:00.0", [ask])
    assert sensors.limits() == {"sm_max_mhz": 2040, "power_limit_w": 700}
    found = sensors.read()
    assert found.numbers == {"sm_mhz": 1980, "memory_mhz": 2619, "temperature_c": 61}
    assert found.throttled == ("power cap", "thermal limit of the hardware")
    assert sensors.memory() == {"used_bytes": 1 << 30}


def test_an_nvidia_smi_that_fails_is_no_sensor(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="knows no GPU at 0000:3b:00"):
        SmiSensors("0000:3b:00.0", [program(tmp_path / "smi", "raise SystemExit(6)\n")])
    with pytest.raises(OSError, match="knows no GPU"):
        SmiSensors("0000:3b:00.0", [str(tmp_path / "nothing")])


def test_a_jetson_is_read_in_its_files(tmp_path: Path) -> None:
    sensors = JetsonSensors(folder(tmp_path, ORIN_NX))
    assert sensors.limits() == {"sm_max_mhz": 918}
    found = sensors.read()
    assert found.numbers == pytest.approx(
        {"sm_mhz": 918, "load_percent": 99.6, "temperature_c": 49.156, "power_w": 12.46}
    )
    assert found.throttled == ()


@pytest.mark.parametrize(
    ("changed", "text", "reason"),
    [
        ("thermal/cooling_device8/cur_state", "1", "gpu-throttle-alert"),
        ("thermal/cooling_device0/cur_state", "5", "cpufreq-cpu0"),
        ("hwmon/hwmon3/oc3_event_cnt", "815", "instantaneous over-current"),
        ("hwmon/hwmon3/oc1_event_cnt", "1", "under-voltage"),
        ("devfreq/17000000.gpu/cur_freq", "612000000", BELOW_MAXIMUM),
    ],
)
def test_what_throttles_a_jetson_is_named(
    tmp_path: Path, changed: str, text: str, reason: str
) -> None:
    sensors = JetsonSensors(folder(tmp_path, ORIN_NX))
    (tmp_path / "sys/class" / changed).write_text(f"{text}\n")
    assert sensors.read().throttled == (reason,)
    if "event_cnt" in changed:
        assert sensors.read().throttled == ()  # told once for each time it happened


def test_an_idle_jetson_may_lower_its_clock(tmp_path: Path) -> None:
    gpu = "sys/class/devfreq/17000000.gpu"
    idle = {f"{gpu}/device/load": "300", f"{gpu}/cur_freq": "306000000"}
    sensors = JetsonSensors(folder(tmp_path, {**ORIN_NX, **idle}))
    assert sensors.read().throttled == ()


def test_a_module_without_a_rail_of_the_whole_adds_its_rails_up(tmp_path: Path) -> None:
    files = dict(ORIN_NX)
    files["sys/class/hwmon/hwmon1/in1_label"] = "VDD_GPU_SOC"
    files["sys/class/hwmon/hwmon1/in3_label"] = "NC"
    files["sys/class/hwmon/hwmon1/in3_input"] = files["sys/class/hwmon/hwmon1/curr3_input"] = "9"
    sensors = JetsonSensors(folder(tmp_path, files))
    assert sensors.read().numbers["power_w"] == pytest.approx(4.984 * (2.5 + 1.2))


def test_older_kernels_name_the_gpu_and_its_load_elsewhere(tmp_path: Path) -> None:
    files = {
        "sys/class/devfreq/17000000.ga10b/device/of_node/name": "ga10b",
        "sys/class/devfreq/17000000.ga10b/cur_freq": "1020000000",
        "sys/devices/gpu.0/load": "500",
        "sys/class/thermal/thermal_zone0/type": "GPU-therm",
        "sys/class/thermal/thermal_zone0/temp": "-256000",
        "sys/class/thermal/thermal_zone1/type": "tj-thermal",
        "sys/class/thermal/thermal_zone1/temp": "41000",
    }
    found = JetsonSensors(folder(tmp_path, files)).read()
    assert found.numbers == {"sm_mhz": 1020, "load_percent": 50, "temperature_c": 41}


def test_files_that_tell_nothing_are_no_sensor(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no clock and no temperature"):
        JetsonSensors(tmp_path)


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        (
            (
                "RAM 3456/15388MB (lfb 20x4MB) CPU [12%@1420,off] EMC_FREQ 24%@2133 "
                "GR3D_FREQ 97%@[918] cpu@52.5C soc2@50C gpu@51C tj@53.5C "
                "VDD_IN 12460mW/9000mW VDD_SOC 2000mW/1mW"
            ),
            {"load_percent": 97, "sm_mhz": 918, "temperature_c": 51, "power_w": 12.46},
        ),
        (
            (
                "RAM 1/2MB GR3D_FREQ 0%@[0,0] CPU@44.562C GPU@-256C tj@44.343C "
                "VDD_GPU_SOC 2340mW/1mW VDD_CPU_CV 390mW/390mW VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW"
            ),
            {"load_percent": 0, "temperature_c": 44.343, "power_w": 6.755},
        ),
        (
            "RAM 1/2MB GR3D_FREQ 5% GPU@31.5C VDD_IN 3528/3569 VDD_SOC 1107/1115",
            {"load_percent": 5, "temperature_c": 31.5, "power_w": 3.528},
        ),
        ("", {}),
    ],
)
def test_tegrastats_lines_of_several_releases(line: str, numbers: Mapping[str, float]) -> None:
    assert parse_tegrastats(line).numbers == pytest.approx(numbers)


def test_tegrastats_is_asked_and_ended(tmp_path: Path) -> None:
    lines = "import sys\nwhile True:\n print('GR3D_FREQ 50%@700 GPU@40C'); sys.stdout.flush()\n"
    sensors = Tegrastats(program(tmp_path / "tegrastats", lines))
    numbers = {"load_percent": 50, "sm_mhz": 700, "temperature_c": 40}
    assert [sensors.read().numbers, sensors.read().numbers] == [numbers, numbers]
    sensors.close()
    assert sensors._process.returncode is not None


def test_what_a_machine_has_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr("ctypes.CDLL", lambda name: driver)
    chosen = sensors_for(1, tmp_path)
    assert isinstance(chosen, NvmlSensors)
    assert driver.asked == b"0000:3c:00.0"
    assert sensors_for(None, tmp_path) is None
    assert isinstance(sensors_for(0, folder(tmp_path, ORIN_NX)), JetsonSensors)


def test_a_machine_without_any_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: Driver(cuInit=100))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sensors_for(0, tmp_path) is None
    assert sensors_for(None, folder(tmp_path, {"etc/nv_tegra_release": "# R36"})) is None
