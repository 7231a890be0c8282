# SPDX-License-Identifier: Apache-2.0
"""Machines made of files and of a driver that answers as theirs does: Jetsons, a PC, a server."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trtpack_runtime import device, gpus, software
from trtpack_runtime.engines import _find

GIB = 1 << 30


@dataclass(frozen=True)
class FakeGpu:
    """What the driver says of a GPU."""

    name: str
    sm: str
    memory_bytes: int
    multiprocessors: int
    integrated: bool


@dataclass(frozen=True)
class Machine:
    """System files, the GPUs and the newest CUDA its driver serves (12060), and its software."""

    arch: str
    gpus: tuple[FakeGpu, ...]
    cuda: int
    tensorrt: str | None
    files: Mapping[str, str] = field(default_factory=dict)


def _jetson(release: str, revision: str, model: str, module: str, **files: str) -> dict[str, str]:
    return {
        "etc/nv_tegra_release": f"# {release} (release), REVISION: {revision}, GCID: 1\n",
        "proc/device-tree/model": f"{model}\0",
        "proc/device-tree/compatible": f"nvidia,p3737-0000+{module}\0nvidia,{module}\0",
        "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd aes\nmodel name\t: ARMv8\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n"
        "< POWER_MODEL ID=2 NAME=MODE_30W >\n",
        **{name.replace("__", "/"): text for name, text in files.items()},
    }


def _system(name: str, gigabytes: int) -> dict[str, str]:
    return {
        "etc/os-release": f'PRETTY_NAME="{name}"\n',
        "proc/meminfo": f"MemTotal: {gigabytes}000000 kB\nMemAvailable: {gigabytes}00000 kB\n",
    }


def _clock(folder: str, now: int, most: int) -> dict[str, str]:
    at = f"sys/class/devfreq/{folder}"
    return {f"{at}/cur_freq": f"{now}000000\n", f"{at}/max_freq": f"{most}000000\n"}


_ORIN = FakeGpu("Orin", "8.7", 61 * GIB, 16, True)
_DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Tue Mar  5 22:23:56 UTC 2024\n"

MACHINES: Mapping[str, Machine] = {
    "orin-jetpack-6.0": Machine(
        "aarch64",
        (_ORIN,),
        12020,
        "8.6.2",
        {
            **_jetson("R36", "3.0", "NVIDIA Jetson AGX Orin Developer Kit", "p3701-0005"),
            **_system("Ubuntu 22.04.4 LTS", 64),
            **_clock("17000000.gpu", 306, 1300),
            "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
            "usr/local/cuda/version.json": '{"cuda": {"version": "12.2.140"}}',
            "usr/lib/aarch64-linux-gnu/libnvinfer.so.8.6.2": "",
        },
    ),
    "orin-jetpack-6.2": Machine(
        "aarch64",
        (_ORIN,),
        12060,
        "10.3.0",
        {
            **_jetson("R36", "4.3", "NVIDIA Jetson AGX Orin Developer Kit", "p3701-0005"),
            **_system("Ubuntu 22.04.5 LTS", 64),
            **_clock("17000000.gpu", 612, 1300),
            "var/lib/nvpmodel/status": "pmode:0000\n",
            "usr/local/cuda/version.json": '{"cuda": {"version": "12.6.68"}}',
            "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": "",
        },
    ),
    "thor-jetpack-7.1": Machine(
        "aarch64",
        (FakeGpu("NVIDIA Thor", "11.0", 122 * GIB, 20, True),),
        13000,
        "10.13.3.9",
        {
            **_jetson("R38", "4.0", "NVIDIA Jetson AGX Thor Developer Kit", "p3834-0008"),
            **_system("Ubuntu 24.04.3 LTS", 128),
            **_clock("gpu-gpc-0", 1575, 1575),
            "var/lib/nvpmodel/status": "pmode:0000\n",
            "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.13.3": "",
        },
    ),
    "desktop": Machine(
        "x86_64",
        (FakeGpu("NVIDIA GeForce RTX 4090", "8.9", 24 * GIB, 128, False),),
        12080,
        None,
        {
            **_system("Ubuntu 24.04.2 LTS", 64),
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD Ryzen 9\nflags\t\t: fma avx2\n",
            "proc/driver/nvidia/version": _DRIVER.format("570.124.06"),
        },
    ),
    "datacenter": Machine(
        "x86_64",
        (FakeGpu("NVIDIA H200", "9.0", 141 * GIB, 132, False),) * 2,
        13000,
        "10.16.1.11",
        {
            **_system("Ubuntu 22.04.5 LTS", 2000),
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: avx512f\n",
            "proc/driver/nvidia/version": _DRIVER.format("580.65.06"),
        },
    ),
}


class FakeDriver:
    """libcuda of a machine, or failing at cuInit."""

    def __init__(self, machine: Machine, code: int = 0) -> None:
        self._gpus, self._cuda, self._code = machine.gpus, machine.cuda, code

    def cuInit(self, flags: int) -> int:
        return self._code

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self._cuda
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self._gpus)
        return 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, length: int, handle: Any) -> int:
        name.value = self._gpus[handle.value].name.encode()
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, handle: Any) -> int:
        size._obj.value = self._gpus[handle.value].memory_bytes
        return 0

    def cuDeviceGetAttribute(self, value: Any, number: int, handle: Any) -> int:
        gpu = self._gpus[handle.value]
        major, minor = map(int, gpu.sm.split("."))
        told = {75: major, 76: minor, 16: gpu.multiprocessors, 18: int(gpu.integrated)}
        value._obj.value = told[number]
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = b"something is off"
        return 0


def install(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Writes a machine's files below ``root`` and puts its driver in the place of this one's."""
    machine = MACHINES[name]
    files = dict(machine.files)
    if machine.tensorrt is not None:
        release = f"python{sys.version_info.major}.{sys.version_info.minor}"
        at = f"usr/lib/{release}/dist-packages/tensorrt/__init__.py"
        files[at] = f'__version__ = "{machine.tensorrt}"\n'
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    find = _find.find
    monkeypatch.setattr(
        _find, "find", lambda module, at=root, path=None: find(module, at, path or [])
    )
    monkeypatch.setattr(_find, "cuda_of", lambda: None)
    monkeypatch.setattr(gpus.ctypes, "CDLL", _library(FakeDriver(machine)))
    monkeypatch.setattr(platform, "machine", lambda: machine.arch)
    monkeypatch.setattr(device, "compiler", lambda: None)
    monkeypatch.setattr(software, "cuda_of_torch", lambda: "12.6")
    monkeypatch.setenv("PATH", "/nowhere")
    return machine


def _library(driver: FakeDriver) -> Any:
    def load(name: str, *_: Any, **__: Any) -> Any:
        if "cuda" not in name:
            raise OSError(name)
        return driver

    return load
