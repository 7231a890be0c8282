# SPDX-License-Identifier: Apache-2.0
"""``trtpack doctor`` tells the facts, what the machine does now, and what follows from both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.runtime.command import trtpack
from tests.runtime.machines import install
from trtpack_runtime.cli import doctor as command
from trtpack_runtime.cli.doctor import conclusions, doctor, rows
from trtpack_runtime.device import Compiler, Cpu, DeviceFacts, Memory, look
from trtpack_runtime.gpus import Driver, Gpu
from trtpack_runtime.jetson import Jetson
from trtpack_runtime.machine_state import GpuState, MachineState, StoreState, state_of
from trtpack_runtime.software import Found

LAPTOP = DeviceFacts(
    os="linux",
    os_release="Ubuntu 22.04.5 LTS",
    kernel="6.8.0",
    arch="x86_64",
    libc="glibc 2.35",
    python="3.10.12",
    runtime="0.1.0",
    cpu=Cpu("Some CPU", 8, ("avx2",)),
    memory=Memory(16 << 30, 8 << 30),
    compiler=Compiler("/usr/bin/g++", "11"),
    torch="2.6.0",
    tensorrt=None,
    tensorrt_rtx=None,
    driver=None,
    gpus=(),
    jetson=None,
)
ORIN = replace(
    LAPTOP,
    arch="aarch64",
    driver=Driver("540.4.0", "12.6"),
    gpus=(Gpu(0, "Orin", "8.7", 61 << 30, 16, True),),
    jetson=Jetson("Jetson AGX Orin", "p3701-0005", "36.4.3", "6.2", "MAXN"),
)
STORE = StoreState(
    folder="/var/cache/trtpack/engines",
    home="/var/cache/trtpack/engines",
    writable=True,
    free_bytes=100 * 10**9,
    limit_bytes=20 * 10**9,
    engines=2,
    engine_bytes=5 * 10**8,
)
QUIET = MachineState((), STORE, None, ())


def told(facts: DeviceFacts) -> str:
    return "\n".join(text for _, text in conclusions(facts))


def shown(facts: DeviceFacts, state: MachineState = QUIET) -> dict[str, str]:
    return {what: text for _, what, text in rows(facts, state)}


def test_this_machine() -> None:
    done = trtpack("doctor")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("This machine\n")
    assert len(done.out.splitlines()) <= 20  # a person reads it at a glance
    found = json.loads(trtpack("doctor", "--json").out)
    assert (found["cpu"], found["schema"]) == (look().to_json()["cpu"], "trtpack.facts/1")
    assert found["now"]["store"]["limit_bytes"] > 0


def test_a_terminal_without_ticks() -> None:
    done = trtpack("doctor", env={"PYTHONIOENCODING": "ascii"})
    assert done.code == 0
    assert "  -  system" in done.out


def test_a_laptop() -> None:
    lines = told(LAPTOP)
    assert "no TensorRT engine runs: no NVIDIA GPU" in lines
    assert lines.endswith("what has no engine runs in PyTorch 2.6.0, on the CPU")
    assert shown(LAPTOP)["gpu"] == "no NVIDIA GPU"
    assert shown(LAPTOP)["tensorrt"] == "none"


def test_a_driver_that_fails_is_told() -> None:
    broken = replace(LAPTOP, problems=("cuInit failed with code 999: unknown",))
    assert "no TensorRT engine runs: cuInit failed with code 999: unknown" in told(broken)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "nothing can be run: install PyTorch"),
        ({"gpus": ORIN.gpus}, "nothing can be run: install PyTorch"),
        (
            {"gpus": ORIN.gpus, "tensorrt": "10.3.0"},
            "install PyTorch, or cuda-bindings for bundles whose engines do everything",
        ),
        (
            {"gpus": ORIN.gpus, "tensorrt": "10.3.0", "cuda_bindings": "12.6"},
            "without PyTorch, bundles run whose engines do everything (Session)",
        ),
    ],
)
def test_without_torch(changes: Any, text: str) -> None:
    assert told(replace(LAPTOP, torch=None, **changes)).endswith(text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"torch_cuda": "12.4"}, "PyTorch 2.6.0, on the GPU"),
        ({}, "on the CPU: this PyTorch is built without CUDA"),
        (
            {"torch_cuda": "13.0"},
            "on the CPU: this PyTorch needs CUDA 13.0, the driver serves 12.6",
        ),
        ({"torch_cuda": "13.0", "driver": None}, "PyTorch 2.6.0, on the GPU"),
    ],
)
def test_where_pytorch_computes(changes: Any, text: str) -> None:
    assert told(replace(ORIN, tensorrt="10.3.0", **changes)).endswith(text)


def test_only_a_host_is_told_of_its_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "installed", lambda name: None)
    assert "compiler" not in shown(LAPTOP)
    monkeypatch.setattr(command, "installed", lambda name: "0.1.0")
    assert shown(LAPTOP)["compiler"] == "/usr/bin/g++ 11"
    assert "compiled elsewhere needs --trust" in told(replace(LAPTOP, compiler=None))


def test_a_jetson() -> None:
    found = shown(ORIN)
    assert found["jetson"] == "Jetson AGX Orin, JetPack 6.2 (L4T 36.4.3), power mode MAXN"
    assert found["gpu"] == "Orin, sm 8.7, shared memory"
    assert found["driver"] == "540.4.0, up to CUDA 12.6"
    assert "--system-site-packages" in told(ORIN)


def test_engines_that_run() -> None:
    lines = told(replace(ORIN, tensorrt="10.3.0"))
    assert "engines of TensorRT 10.3.0 for sm 8.7 run, others are built here" in lines
    assert "--system-site-packages" not in lines
    old = replace(ORIN, tensorrt="10.16.1", driver=Driver("470.1", "11.4"))
    assert "no TensorRT engine runs: the driver serves CUDA 11.4, TensorRT 10.16.1 needs" in told(
        old
    )
    rtx = replace(ORIN, tensorrt_rtx="1.7")
    assert "TensorRT-RTX does not run on Orin" in told(rtx)
    ada = replace(rtx, gpus=(replace(ORIN.gpus[0], name="RTX 4090", sm="8.9"),))
    assert "engines of TensorRT-RTX 1.7 for sm 8.9 run" in told(ada)


def test_a_tensorrt_of_another_python() -> None:
    alone = replace(QUIET, tensorrts=(Found("libnvinfer", "10.3.0", "/usr/lib"),))
    assert (
        shown(ORIN, alone)["tensorrt"] == "none for this Python, though libnvinfer 10.3.0 is there"
    )
    two = replace(QUIET, tensorrts=tuple(Found("tensorrt", v, "/x") for v in ("10.3.0", "10.9")))
    assert shown(replace(ORIN, tensorrt="10.9"), two)["tensorrt"] == "10.9; not used: 10.3.0"


def test_what_the_gpu_does_now() -> None:
    facts = replace(ORIN, gpus=(replace(ORIN.gpus[0], integrated=False, memory_bytes=24 * 10**9),))
    readings = {"sm_mhz": 612.0, "sm_max_mhz": 1300.0, "temperature_c": 48.5}
    now = replace(QUIET, gpus=(GpuState(0, 20 * 10**9, readings, ("power cap",)),))
    assert shown(facts, now)["gpu"] == (
        "Orin, sm 8.7, 20 GB of 24 GB free, 612 of 1300 MHz, 48 °C, slowed by power cap"
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "2 engines, 500 MB of 20 GB allowed, 100 GB free on its disk, in /var/cache/trtpack"),
        ({"free_bytes": None}, "2 engines, 500 MB of 20 GB allowed, in /var/cache/trtpack/engines"),
        ({"folder": "/var/tmp/t"}, "in /var/tmp/t; /var/cache/trtpack/engines is read-only"),
        (
            {"writable": False},
            "cannot be written, engines are built again at each start; 2 engines",
        ),
    ],
)
def test_the_store(changes: Any, text: str) -> None:
    good, _, found = list(rows(LAPTOP, replace(QUIET, store=replace(STORE, **changes))))[-1]
    assert text in found
    assert good is changes.get("writable", True)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "orin-jetpack-6.0",
            [
                "JetPack 6.0 (L4T 36.3.0), power mode MODE_30W",
                "Orin, sm 8.7, shared memory, 306 of 1300 MHz",
                "engines of TensorRT 8.6.2 for sm 8.7 run",
            ],
        ),
        ("thor-jetpack-7.1", ["NVIDIA Thor, sm 11.0, shared memory, 1575 of 1575 MHz"]),
        ("desktop", ["570.124.06, up to CUDA 12.8", "no TensorRT engine runs: install tensorrt"]),
        ("datacenter", ["gpu 0", "gpu 1", "engines of TensorRT 10.16.1.11 for sm 9.0 run"]),
    ],
)
def test_machines(
    name: str, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(name, tmp_path, monkeypatch)
    facts = look(tmp_path)
    state = state_of(facts, tmp_path)
    monkeypatch.setattr(command, "look", lambda: facts)
    monkeypatch.setattr(command, "state_of", lambda found: state)
    out = CliRunner().invoke(doctor).output
    words = " ".join(out.split())  # lines are as long as the terminal is wide
    assert all(line in words for line in lines), out
    value = json.loads(CliRunner().invoke(doctor, ["--json"]).output)
    assert len(value["now"]["gpus"]) == len(value["gpus"])
