# SPDX-License-Identifier: Apache-2.0
"""NVIDIA GPUs and their driver, asked of the driver itself, else of ``nvidia-smi``; no torch.

Sources: CUDA driver API, ``cuDeviceGetAttribute`` (the numbers of ``CUdevice_attribute``).
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76
_VERSION = re.compile(r"Kernel Module[^\n]*?\s(\d+\.\d+(?:\.\d+)?)\s")


@dataclass(frozen=True)
class Gpu:
    """A GPU. ``sm`` is its compute capability ("8.7"); ``integrated`` shares the host's memory."""

    index: int
    name: str
    sm: str
    memory_bytes: int
    multiprocessors: int | None = None
    integrated: bool | None = None


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver: its own version and the newest CUDA it serves, each where known."""

    version: str | None
    cuda: str | None


@dataclass(frozen=True)
class Graphics:
    """What was found; ``problem`` says why a driver that is there shows no GPU."""

    driver: Driver | None = None
    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None


class _DriverError(Exception):
    """A call of the driver that failed."""


def graphics(root: Path = Path("/")) -> Graphics:
    """The GPUs of this machine."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return _asked_of_nvidia_smi()
    try:
        return _asked_of_driver(library, driver_version(root))
    except (_DriverError, AttributeError) as error:
        found = _asked_of_nvidia_smi()
        if found.gpus:
            return found
        return Graphics(Driver(driver_version(root), None), (), str(error))


def visible(index: int) -> str:
    """The value of CUDA_VISIBLE_DEVICES that leaves one of the GPUs visible now."""
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return names[index].strip() if index < len(names) else str(index)


def driver_version(root: Path = Path("/")) -> str | None:
    """The version of the loaded kernel module."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = _VERSION.search(text)
    return match[1] if match else None


def parse_nvidia_smi(text: str) -> Graphics:
    """What ``nvidia-smi --query-gpu=index,name,compute_cap,memory.total,driver_version`` says."""
    gpus, version = [], None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 5 and cells[0].isdigit() and re.fullmatch(r"\d+\.\d+", cells[2]):
            memory = int(cells[3]) << 20 if cells[3].isdigit() else 0
            gpus.append(Gpu(int(cells[0]), cells[1], cells[2], memory))
            version = cells[4]
    return Graphics(Driver(version, None) if gpus else None, tuple(gpus))


def _asked_of_driver(library: ctypes.CDLL, version: str | None) -> Graphics:
    code = library.cuInit(0)
    cuda = Driver(version, _cuda_version(library))
    if code == _NO_DEVICE:
        return Graphics(cuda, (), "the driver sees no GPU")
    _check(library, code, "cuInit")
    count = ctypes.c_int()
    _check(library, library.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    return Graphics(cuda, tuple(_gpu(library, i) for i in range(count.value)))


def _gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    _check(library, library.cuDeviceGet(ctypes.byref(device), index), "cuDeviceGet")
    _check(library, library.cuDeviceGetName(name, len(name), device), "cuDeviceGetName")
    code = library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    _check(library, code, "cuDeviceTotalMem")

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        code = library.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        _check(library, code, "cuDeviceGetAttribute")
        return value.value

    return Gpu(
        index,
        name.value.decode(errors="replace"),
        f"{attribute(_MAJOR)}.{attribute(_MINOR)}",
        memory.value,
        attribute(_MULTIPROCESSORS),
        bool(attribute(_INTEGRATED)),
    )


def _cuda_version(library: ctypes.CDLL) -> str | None:
    value = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(value)):
        return None
    return f"{value.value // 1000}.{value.value % 1000 // 10}"


def _check(library: ctypes.CDLL, code: int, call: str) -> None:
    if code:
        text = ctypes.c_char_p()
        library.cuGetErrorString(code, ctypes.byref(text))
        reason = (text.value or b"unknown error").decode(errors="replace")
        raise _DriverError(f"{call} failed with code {code}: {reason}")


def _asked_of_nvidia_smi() -> Graphics:
    query = "--query-gpu=index,name,compute_cap,memory.total,driver_version"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return Graphics()
    return parse_nvidia_smi(done.stdout)
