# SPDX-License-Identifier: Apache-2.0
"""Clocks, temperature, power and throttling of a Jetson, read in ``/sys``; else ``tegrastats``.

Sources: NVIDIA Jetson Linux Developer Guide, "Platform Power and Performance": cooling devices
(``*-throttle-alert``), power monitors (INA3221), over-current events (``oc1`` under-voltage,
``oc2`` average, ``oc3`` instantaneous over-current) and the rails' names; the Linux documents
``devfreq``, ``thermal`` (millidegrees) and ``hwmon/ina3221`` (millivolts, milliamperes). The
``load`` of NVIDIA's GPU driver is in tenths of a percent.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from .sensors import BELOW_MAXIMUM, Reading

_GPU_NODES = ("gpu", "ga10b", "gv11b", "gp10b", "gpu-gpc-0")
_LOADS = ("sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load")
_WHOLE = ("VDD_IN", "VIN", "POM_5V_IN")
"""Rails that feed the whole module; where there is none, the others are added up."""

_OVERCURRENT = {1: "under-voltage", 2: "average over-current", 3: "instantaneous over-current"}
_BUSY, _HIGH = 90.0, 0.9
"""Percent of load at which a clock below this part of its maximum is told."""


class JetsonSensors:
    """Reads a Jetson's files; system files are below ``root``.

    Raises:
        OSError: they tell neither a clock nor a temperature.
    """

    source, every_s = "sysfs", 0.1

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._gpu = next(_gpu_folders(root), None)
        self._zones = _zones(root)
        self._rails = _rails(root)
        self._cooling = _cooling(root)
        self._events = dict(_events(root))
        self._counted = {path: _number(path) for path in self._events}
        if self._gpu is None and not self._zones:
            raise OSError("this machine's /sys tells no clock and no temperature")

    def limits(self) -> Mapping[str, float]:
        """``sm_max_mhz``: the GPU's highest clock in this power mode."""
        highest = self._gpu and _number(self._gpu / "max_freq")
        return {"sm_max_mhz": highest / 1e6} if highest else {}

    def read(self) -> Reading:
        """What the sensors say now."""
        numbers: dict[str, float] = {}
        clock = self._gpu and _number(self._gpu / "cur_freq")
        if clock:
            numbers["sm_mhz"] = clock / 1e6
        load = self._load()
        if load is not None:
            numbers["load_percent"] = load
        degrees = _temperature({name: _number(path) for name, path in self._zones.items()})
        if degrees is not None:
            numbers["temperature_c"] = degrees
        watts = whole_power(dict(self._watts()))
        if watts is not None:
            numbers["power_w"] = watts
        return Reading(numbers, tuple(self._throttled(numbers)))

    def memory(self) -> Mapping[str, int]:
        """Nothing: CPU and GPU share the main memory."""
        return {}

    def close(self) -> None:
        """Nothing is kept open."""

    def _load(self) -> float | None:
        paths = [self._root / path for path in _LOADS]
        if self._gpu is not None:
            paths.insert(0, self._gpu / "device/load")
        found = next((n for path in paths if (n := _number(path)) is not None), None)
        return None if found is None else found / 10

    def _watts(self) -> Iterator[tuple[str, float]]:
        for name, (voltage, current) in self._rails.items():
            millivolts, milliamperes = _number(voltage), _number(current)
            if millivolts is not None and milliamperes is not None:
                yield name, millivolts * milliamperes / 1e6

    def _throttled(self, numbers: Mapping[str, float]) -> Iterator[str]:
        for name, state in self._cooling:
            if _number(state):
                yield name
        for path, name in self._events.items():
            before, now = self._counted[path], _number(path)
            if now is not None and before is not None and now > before:
                self._counted[path] = now
                yield name
        highest = self.limits().get("sm_max_mhz")
        clock, load = numbers.get("sm_mhz"), numbers.get("load_percent", 0.0)
        if highest and clock and load >= _BUSY and clock < _HIGH * highest:
            yield BELOW_MAXIMUM


class Tegrastats:
    """Reads what ``tegrastats`` prints; for a Jetson whose files do not tell.

    Raises:
        OSError: it cannot be started.
    """

    source, every_s = "tegrastats", 0.1

    def __init__(self, command: str = "tegrastats") -> None:
        self._process = subprocess.Popen(
            [command, "--interval", "100"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def limits(self) -> Mapping[str, float]:
        """It tells none."""
        return {}

    def read(self) -> Reading:
        """The next line; nothing once it has ended."""
        assert self._process.stdout is not None
        return parse_tegrastats(self._process.stdout.readline())

    def memory(self) -> Mapping[str, int]:
        """Nothing: CPU and GPU share the main memory."""
        return {}

    def close(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def parse_tegrastats(line: str) -> Reading:
    """What a line of tegrastats says of the GPU and of the whole module."""
    numbers: dict[str, float] = {}
    if found := re.search(r"GR3D_FREQ (\d+)%(?:@\[?(\d+))?", line):
        numbers["load_percent"] = float(found[1])
        if found[2] is not None and float(found[2]) > 0:
            numbers["sm_mhz"] = float(found[2])
    zones = {name.lower(): float(t) * 1e3 for name, t in re.findall(r"(\w+)@(-?[\d.]+)C", line)}
    degrees = _temperature(zones)
    if degrees is not None:
        numbers["temperature_c"] = degrees
    rails = re.findall(r"\b((?:VDD|VIN|POM)\w*) (\d+)(?:mW)?/\d+", line)
    watts = whole_power({name: float(milliwatts) / 1e3 for name, milliwatts in rails})
    if watts is not None:
        numbers["power_w"] = watts
    return Reading(numbers)


def whole_power(rails: Mapping[str, float]) -> float | None:
    """The watts of a module of those of its rails."""
    whole = next((rails[name] for name in _WHOLE if name in rails), None)
    if whole is not None:
        return whole
    return sum(rails.values()) if rails else None


def _temperature(zones: Mapping[str, float | None]) -> float | None:
    """The GPU's degrees of millidegrees by zone, else the junctions' highest, else the highest.

    A zone whose part is off tells -256.
    """
    told = {name: t / 1e3 for name, t in zones.items() if t is not None and t > -100_000}
    for part in ("gpu", "tj"):
        found = next((t for name, t in told.items() if name.startswith(part)), None)
        if found is not None:
            return found
    return max(told.values(), default=None)


def _gpu_folders(root: Path) -> Iterator[Path]:
    for folder in _folders(root / "sys/class/devfreq"):
        node = _text(folder / "device/of_node/name").strip("\0\n ")
        if node in _GPU_NODES or folder.name in _GPU_NODES or folder.name.endswith(".gpu"):
            yield folder


def _zones(root: Path) -> dict[str, Path]:
    return {
        _text(zone / "type").strip().lower(): zone / "temp"
        for zone in _folders(root / "sys/class/thermal")
        if zone.name.startswith("thermal_zone")
    }


def _cooling(root: Path) -> list[tuple[str, Path]]:
    """What slows a part down to cool it, fans left out."""
    found = []
    for device in _folders(root / "sys/class/thermal"):
        name = _text(device / "type").strip()
        if device.name.startswith("cooling_device") and "fan" not in name:
            found.append((name, device / "cur_state"))
    return found


def _rails(root: Path) -> dict[str, tuple[Path, Path]]:
    found = {}
    for monitor in _folders(root / "sys/class/hwmon"):
        if "ina3221" not in _text(monitor / "name"):
            continue
        for number in (1, 2, 3):
            name = _text(monitor / f"in{number}_label").strip()
            if name and name != "NC":
                found[name] = monitor / f"in{number}_input", monitor / f"curr{number}_input"
    return found


def _events(root: Path) -> Iterator[tuple[Path, str]]:
    for monitor in _folders(root / "sys/class/hwmon"):
        for number, name in _OVERCURRENT.items():
            path = monitor / f"oc{number}_event_cnt"
            if path.is_file():
                yield path, name


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        return []


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
