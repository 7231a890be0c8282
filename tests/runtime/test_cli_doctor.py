# SPDX-License-Identifier: Apache-2.0
"""``trtpack doctor`` tells the facts and what follows from them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.runtime.command import trtpack
from trtpack_runtime.cli.doctor import conclusions, rows
from trtpack_runtime.device import Compiler, Cpu, DeviceFacts, Memory, look
from trtpack_runtime.gpus import Driver, Gpu
from trtpack_runtime.jetson import Jetson

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


def told(facts: DeviceFacts) -> str:
    return "\n".join(text for _, text in conclusions(facts))


def test_this_machine() -> None:
    done = trtpack("doctor")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("This machine\n")
    assert "For bundles that means\n  ✓  bundles can be inspected and verified" in done.out
    assert json.loads(trtpack("doctor", "--json").out)["cpu"] == look().to_json()["cpu"]


def test_a_terminal_without_ticks() -> None:
    done = trtpack("doctor", env={"PYTHONIOENCODING": "ascii"})
    assert done.code == 0
    assert "  +  bundles can be inspected and verified" in done.out


def test_a_laptop() -> None:
    lines = told(LAPTOP)
    assert "no NVIDIA GPU: segments run by inductor or reference, on the CPU" in lines
    assert "can be compiled for this CPU" in lines
    assert ("gpu", "no NVIDIA GPU") in [row[1:] for row in rows(LAPTOP)]


def test_a_driver_that_fails_is_told() -> None:
    broken = replace(LAPTOP, problems=("cuInit failed with code 999: unknown",))
    assert "cuInit failed with code 999: unknown: segments run by" in told(broken)


def test_without_torch_or_compiler() -> None:
    assert told(replace(LAPTOP, torch=None)).endswith("they cannot be run: install PyTorch")
    assert "compiled elsewhere needs --trust" in told(replace(LAPTOP, compiler=None))


def test_a_jetson() -> None:
    found = {what: text for _, what, text in rows(ORIN)}
    assert found["jetson"] == "Jetson AGX Orin, JetPack 6.2 (L4T 36.4.3), power mode MAXN"
    assert found["gpu 0"] == "Orin, sm 8.7, shared memory"
    assert found["driver"] == "540.4.0, up to CUDA 12.6"
    assert "--system-site-packages" in told(ORIN)


@pytest.mark.parametrize("kind", ["tensorrt", "tensorrt_rtx"])
def test_an_installed_tensorrt_is_named(kind: str) -> None:
    lines = told(replace(ORIN, **{kind: "10.3.0"}))
    title = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}[kind]
    assert f"{title} engine" in lines
    assert "--system-site-packages" not in lines
