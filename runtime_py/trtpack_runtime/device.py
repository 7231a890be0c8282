# SPDX-License-Identifier: Apache-2.0
"""The facts of this machine that decide what it can run. Neither torch nor TensorRT is imported."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__, software
from .engines import _find
from .gpus import Driver, Gpu, graphics
from .jetson import Jetson, jetson

SCHEMA = "trtpack.facts/1"
"""The form of ``DeviceFacts.to_json``; docs/reference/device-facts.md has every key."""


@dataclass(frozen=True)
class Cpu:
    """The processor; ``flags`` are the instruction sets the system names."""

    model: str
    count: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """Main memory; ``available_bytes`` can be had without swapping."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class Compiler:
    """The C++ compiler that AOTInductor would use."""

    path: str
    version: str


@dataclass(frozen=True)
class DeviceFacts:
    """One machine: what does not change while it runs. Versions are text, None where a thing is
    not there."""

    os: str
    os_release: str
    kernel: str
    arch: str
    libc: str
    python: str
    runtime: str
    cpu: Cpu
    memory: Memory
    compiler: Compiler | None
    torch: str | None
    tensorrt: str | None
    tensorrt_rtx: str | None
    driver: Driver | None
    gpus: tuple[Gpu, ...]
    jetson: Jetson | None
    problems: tuple[str, ...] = ()
    tensorrt_cuda: str | None = None
    """The major release of CUDA that ``tensorrt`` is for, where its package's name tells it."""

    torch_cuda: str | None = None
    """The CUDA that ``torch`` is for; None where it only computes on the CPU."""

    cuda_bindings: str | None = None
    """The version of ``cuda.bindings``, by which engines run without PyTorch."""

    def to_json(self) -> dict[str, Any]:
        """The facts as plain JSON values, as engines compare them."""
        value = {"schema": SCHEMA, **asdict(self)}
        value["cpu"]["flags"] = list(self.cpu.flags)
        value["gpus"] = [asdict(gpu) for gpu in self.gpus]
        value["problems"] = list(self.problems)
        return value


def facts() -> dict[str, Any]:
    """This machine's facts as plain JSON values."""
    return look().to_json()


def look(root: Path = Path("/")) -> DeviceFacts:
    """Looks at this machine; system files are read below ``root``."""
    found = graphics(root)
    return DeviceFacts(
        os=platform.system().lower(),
        os_release=os_release(root),
        kernel=platform.release(),
        arch=platform.machine(),
        libc=" ".join(platform.libc_ver()).strip() or "unknown",
        python=platform.python_version(),
        runtime=__version__,
        cpu=cpu(root),
        memory=memory(root),
        compiler=compiler(),
        torch=installed("torch"),
        tensorrt=_find.installed("tensorrt", root),
        tensorrt_rtx=_find.installed("tensorrt_rtx", root),
        driver=found.driver,
        gpus=found.gpus,
        jetson=jetson(root),
        problems=(found.problem,) if found.problem else (),
        tensorrt_cuda=_find.cuda_of(),
        torch_cuda=software.cuda_of_torch(),
        cuda_bindings=installed("cuda-bindings", "cuda-python"),
    )


def installed(*names: str) -> str | None:
    """The version of the first of these distributions that is there; nothing is imported."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def os_release(root: Path = Path("/")) -> str:
    """The system's own name, such as ``Ubuntu 22.04.4 LTS``."""
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text(root / "etc/os-release"), re.MULTILINE)
    return match[1] if match else platform.system()


def cpu(root: Path = Path("/")) -> Cpu:
    """The processor, from ``/proc/cpuinfo``."""
    fields: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features") or ""
    model = fields.get("model name") or fields.get("Model") or platform.machine()
    return Cpu(model, _cores(), tuple(sorted(set(flags.split()))))


def memory(root: Path = Path("/")) -> Memory:
    """Main memory, from ``/proc/meminfo``; zeros where the system does not say."""
    text = _text(root / "proc/meminfo")
    return Memory(*(_kibibytes(text, key) for key in ("MemTotal", "MemAvailable")))


def compiler() -> Compiler | None:
    """The compiler that ``$CXX`` names, else ``g++`` or ``clang++``."""
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        path = shutil.which(name) if name else None
        if path is None:
            continue
        try:
            done = subprocess.run(
                [path, "-dumpversion"], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return Compiler(path, done.stdout.strip())
    return None


def _cores() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _kibibytes(text: str, key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
