# SPDX-License-Identifier: Apache-2.0
"""Facts of machines, this one and ones made of files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.machines import MACHINES, FakeDriver, install
from trtpack_runtime import device, gpus, jetson, software
from trtpack_runtime.gpus import Driver, Gpu, Graphics

ORIN = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, "
    "EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0"
    "nvidia,tegra234\0",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "proc/meminfo": "MemTotal:       64349636 kB\nMemFree: 1 kB\nMemAvailable:   60000000 kB\n",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd aes sha2\nCPU implementer : 0x41\n\n"
    "processor\t: 1\nFeatures\t: fp asimd\n",
}


@pytest.fixture
def orin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system files of a Jetson, and its nvpmodel."""
    for name, text in ORIN.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    tool = tmp_path / "bin" / "nvpmodel"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NV Power Mode: MODE_30W'\necho 2\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return tmp_path


def test_a_jetson(orin: Path) -> None:
    assert jetson.jetson(orin) == jetson.Jetson(
        "NVIDIA Jetson AGX Orin Developer Kit", "p3701-0005", "36.4.3", "6.2", "MODE_30W"
    )


@pytest.mark.parametrize(
    ("status", "mode"),
    [
        ("pmode:0000 fmode:cool\n", "MAXN"),
        ("pmode:0013\n", "MODE_15W"),
        ("pmode:0007\n", "MODE_30W"),  # no such mode in the table: nvpmodel is asked
        ("", "MODE_30W"),
    ],
)
def test_the_power_mode_is_where_nvpmodel_keeps_it(orin: Path, status: str, mode: str) -> None:
    (orin / "var/lib/nvpmodel").mkdir(parents=True)
    (orin / "var/lib/nvpmodel/status").write_text(status)
    (orin / "etc/nvpmodel.conf").write_text(
        "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_1 1\n< POWER_MODEL ID=13 NAME=MODE_15W >\n"
    )
    assert jetson.power_mode(orin) == mode


def test_an_unheard_of_jetpack(orin: Path) -> None:
    (orin / "etc/nv_tegra_release").write_text("# R99 (release), REVISION: 1.0, GCID: 1")
    found = jetson.jetson(orin)
    assert found is not None
    assert (found.l4t, found.jetpack) == ("99.1.0", None)


def test_other_machines_are_no_jetson(tmp_path: Path) -> None:
    assert jetson.jetson(tmp_path) is None


def test_system_files(orin: Path) -> None:
    assert device.os_release(orin) == "Ubuntu 22.04.5 LTS"
    assert device.memory(orin) == device.Memory(64349636 << 10, 60000000 << 10)
    assert device.cpu(orin).flags == ("aes", "asimd", "fp", "sha2")


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert device.memory(tmp_path) == device.Memory(0, 0)
    assert device.cpu(tmp_path).flags == ()
    assert device.os_release(tmp_path)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Puts something in the place of libcuda and leaves nvidia-smi out."""
    monkeypatch.setenv("PATH", "/nowhere")

    def load(name: str) -> Any:
        if found is None:
            raise OSError(name)
        return found

    found: Any = None

    def choose(what: Any) -> None:
        nonlocal found
        found = what
        monkeypatch.setattr(gpus.ctypes, "CDLL", load)

    return choose


def test_gpus_as_the_driver_tells(library: Callable[[Any], None], tmp_path: Path) -> None:
    library(FakeDriver(MACHINES["orin-jetpack-6.2"]))
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
        "GCC version:  gcc version 12.3.0\n"
    )
    orin = Gpu(0, "Orin", "8.7", 61 << 30, multiprocessors=16, integrated=True)
    assert gpus.graphics(tmp_path) == Graphics(Driver("550.54.15", "12.6"), (orin,))


def test_the_open_kernel_modules_version(tmp_path: Path) -> None:
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\n"
    )
    assert gpus.driver_version(tmp_path) == "570.124.06"


def test_a_machine_without_driver(library: Callable[[Any], None]) -> None:
    library(None)
    assert gpus.graphics() == Graphics()


@pytest.mark.parametrize(
    ("code", "problem"),
    [(100, "the driver sees no GPU"), (999, "cuInit failed with code 999: something is off")],
)
def test_a_driver_that_shows_no_gpu(
    code: int, problem: str, library: Callable[[Any], None]
) -> None:
    library(FakeDriver(MACHINES["desktop"], code))
    found = gpus.graphics()
    assert (found.gpus, found.problem) == ((), problem)


def test_a_library_that_is_no_driver(library: Callable[[Any], None]) -> None:
    library(object())
    assert not gpus.graphics().gpus


def test_nvidia_smi() -> None:
    text = (
        "0, NVIDIA GeForce RTX 4090, 8.9, 24564, 560.35.03\n"
        "1, NVIDIA A2, 8.6, [N/A], 560.35.03\n"
        "Failed to initialize NVML, that is a line of another kind\n"
    )
    assert gpus.parse_nvidia_smi(text) == Graphics(
        Driver("560.35.03", None),
        (
            Gpu(0, "NVIDIA GeForce RTX 4090", "8.9", 24564 << 20),
            Gpu(1, "NVIDIA A2", "8.6", 0),
        ),
    )
    assert gpus.parse_nvidia_smi("") == Graphics()


def test_this_machine_has_every_fact_that_engines_ask_for() -> None:
    facts = json.loads(json.dumps(device.facts()))
    assert facts["os"] == sys.platform
    assert facts["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert facts["cpu"]["count"] >= 1
    assert isinstance(facts["cpu"]["flags"], list)
    assert {"arch", "torch", "tensorrt", "tensorrt_rtx", "gpus", "driver", "jetson"} <= set(facts)


def test_the_compiler_that_cxx_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "my-c++"
    tool.write_text("#!/bin/sh\necho 99.1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("CXX", str(tool))
    assert device.compiler() == device.Compiler(str(tool), "99.1")
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setenv("PATH", "/nowhere")
    assert device.compiler() is None


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from trtpack_runtime.device import facts; facts(); "
        "print({'torch', 'numpy', 'tensorrt', 'tensorrt_rtx', 'click'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("orin-jetpack-6.0", ("aarch64", "8.7", "12.2", "8.6.2", "36.3.0", "6.0", "MODE_30W")),
        ("orin-jetpack-6.2", ("aarch64", "8.7", "12.6", "10.3.0", "36.4.3", "6.2", "MAXN")),
        ("thor-jetpack-7.1", ("aarch64", "11.0", "13.0", "10.13.3.9", "38.4.0", "7.1", "MAXN")),
        ("desktop", ("x86_64", "8.9", "12.8", None, None, None, None)),
        ("datacenter", ("x86_64", "9.0", "13.0", "10.16.1.11", None, None, None)),
    ],
)
def test_the_facts_of_machines(
    name: str, found: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = install(name, tmp_path, monkeypatch)
    facts = device.look(tmp_path)
    value = json.loads(json.dumps(facts.to_json()))
    assert value["schema"] == "trtpack.facts/1"
    of_jetson = value["jetson"] or dict.fromkeys(("l4t", "jetpack", "power_mode"))
    assert found == (
        value["arch"],
        value["gpus"][0]["sm"],
        value["driver"]["cuda"],
        value["tensorrt"],
        of_jetson["l4t"],
        of_jetson["jetpack"],
        of_jetson["power_mode"],
    )
    assert [gpu["name"] for gpu in value["gpus"]] == [gpu.name for gpu in machine.gpus]
    assert value["torch_cuda"] == "12.6"
    assert value["memory"]["total_bytes"] > value["memory"]["available_bytes"] > 0


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        ("cuda: Optional[str] = '12.6'\nhip: Optional[str] = None\n", "12.6"),
        ('cuda = "13.0"\n', "13.0"),
        ("cuda: Optional[str] = None\n", None),
        ("", None),
    ],
)
def test_the_cuda_that_torch_is_for(text: str, cuda: str | None, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise ImportError")
    (tmp_path / "torch/version.py").write_text(f"__version__ = '2.8'\n{text}")
    assert software.cuda_of_torch([str(tmp_path)]) == cuda
    assert software.cuda_of_torch([str(tmp_path / "elsewhere")]) is None


def test_the_cuda_toolkit(tmp_path: Path) -> None:
    assert software.cuda_toolkit(tmp_path) is None
    folder = tmp_path / "usr/local/cuda"
    folder.mkdir(parents=True)
    (folder / "version.txt").write_text("CUDA Version 10.2.89\n")
    assert software.cuda_toolkit(tmp_path) == "10.2.89"
    (folder / "version.json").write_text('{"cuda": {"name": "CUDA SDK", "version": "12.6.68"}}')
    assert software.cuda_toolkit(tmp_path) == "12.6.68"


def test_every_tensorrt_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("orin-jetpack-6.2", tmp_path, monkeypatch)
    found = {(f.what, f.version) for f in software.every_tensorrt(tmp_path)}
    assert {("tensorrt", "10.3.0"), ("libnvinfer", "10.3.0")} <= found
