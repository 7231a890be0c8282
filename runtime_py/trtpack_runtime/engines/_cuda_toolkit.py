# SPDX-License-Identifier: Apache-2.0
"""CUDA's headers and driver library, where AOTInductor's C++ compiler finds them.

PyTorch takes the folder above ``nvcc`` for the toolkit, which a wrapper of that name in another
folder misleads, and links with ``-lcuda``, for which a machine with only a driver has no file.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from trtpack_runtime.errors import EngineBuildError

HEADERS = ("include/cuda_runtime.h", "include/crt/host_config.h")
_PLACES = Path("/usr/local")
_DRIVER = "libcuda.so.1"


def use_toolkit(environment: MutableMapping[str, str], folder: Path) -> None:
    """Names the toolkit in the variables that PyTorch and the linker heed; ``folder`` takes a link.

    Raises:
        EngineBuildError: there is no toolkit.
    """
    environment["CUDA_HOME"] = str(toolkit(environment))
    driver = _driver()
    if driver is not None:
        (folder / "libcuda.so").symlink_to(driver)
        known = environment.get("LIBRARY_PATH")
        environment["LIBRARY_PATH"] = os.pathsep.join(filter(None, (str(folder), known)))


def toolkit(environment: Mapping[str, str], places: Path = _PLACES) -> Path:
    """The folder of CUDA's toolkit: what the environment names, else the newest one there is.

    Raises:
        EngineBuildError: none has the headers that a program for a GPU is compiled with.
    """
    for folder in _candidates(environment, places):
        if all((folder / header).is_file() for header in HEADERS):
            return folder
    raise EngineBuildError(
        "cannot compile for the GPU: no CUDA toolkit with its headers found",
        hint="install the CUDA toolkit or name it in CUDA_HOME, or use --engine reference",
    )


def _candidates(environment: Mapping[str, str], places: Path) -> Iterator[Path]:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if environment.get(name):
            yield Path(environment[name])
    yield places / "cuda"
    yield from sorted(places.glob("cuda-*"), key=_release, reverse=True)
    nvcc = shutil.which("nvcc", path=environment.get("PATH"))
    if nvcc is not None:
        yield Path(nvcc).resolve().parents[1]


def _release(folder: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", folder.name)))


def _driver() -> Path | None:
    """The file of the driver's library, as this process maps it."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = (Path(line.split(maxsplit=5)[5]) for line in maps if "/libcuda.so" in line)
    return next(mapped, None)
