# SPDX-License-Identifier: Apache-2.0
"""Finds TensorRT and its version without importing it.

A wheel tells its version in its metadata. Where there is none (Debian packages, containers,
copies), the version stands in the text of the package. JetPack puts the package into the system's
``dist-packages``, which a virtual environment does not see; it is found there too, for the same
Python release only, since it is compiled for one.
"""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from trtpack_runtime.errors import DeviceError

DISTRIBUTIONS = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11"),
    "tensorrt_rtx": ("tensorrt-rtx",),
}
"""Module -> the distributions that bring it."""

_VERSION = re.compile(r"""^__version__\s*(?::[^=]+)?=\s*["']([^"']+)["']""", re.MULTILINE)
_TAG = re.compile(r"\.cpython-(\d+)")
_FILES = ("__init__.py", "_version.py", "version.py")
_ROOT = Path("/")


@dataclass(frozen=True)
class Found:
    """A TensorRT package: its version, and the folder to add to the path where it is not on it."""

    version: str
    folder: Path | None = None


def find(module: str, root: Path = _ROOT, path: list[str] | None = None) -> Found | None:
    """The package that ``import module`` would give, or the system's; None where there is none.

    ``path`` is what ``sys.path`` is by default; ``root`` what system folders are below.
    """
    searched = sys.path if path is None else path
    version = _version_on(module, searched)
    if version is not None:
        return Found(version)
    for folder in system_folders(root):
        version = _version_on(module, [str(folder)])
        if version is not None:
            return Found(version, folder)
    return None


def installed(module: str, root: Path = _ROOT) -> str | None:
    """The version of a TensorRT module, None where it is not there."""
    found = find(module, root)
    return None if found is None else found.version


def cuda_of(path: list[str] | None = None) -> str | None:
    """The major release of CUDA that the installed TensorRT is for, where its name tells ("13")."""
    searched = sys.path if path is None else path
    found = [
        release
        for release in ("11", "12", "13")
        if any(metadata.distributions(name=f"tensorrt-cu{release}", path=searched))
    ]
    return found[0] if len(found) == 1 else None


def imported(module: str, root: Path = _ROOT) -> Any:
    """Imports a TensorRT module, from the system's folder where it is only there.

    Raises:
        DeviceError: it is not there, or cannot be loaded.
    """
    try:
        if module not in sys.modules:
            found = find(module, root) if module in DISTRIBUTIONS else None
            if found is not None and found.folder is not None:
                return _imported_from(module, found.folder)
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"cannot import {module}: {_one_line(error)}",
            hint=f"install {module.replace('_', '-')} on this machine, or mend its libraries",
        ) from error


def system_folders(root: Path = _ROOT) -> list[Path]:
    """Where Debian packages put Python packages for this Python release."""
    release = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = [
        root / "usr/lib" / release / "dist-packages",
        root / "usr/local/lib" / release / "dist-packages",
    ]
    if (root / "usr/bin/python3").resolve().name == release:
        folders.append(root / "usr/lib/python3/dist-packages")
    return [folder for folder in folders if folder.is_dir()]


def _version_on(module: str, path: list[str]) -> str | None:
    """The version of a module on a path: from the package's text, else from its metadata."""
    spec = PathFinder.find_spec(module, path)
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        return None  # a plain folder of that name is no package
    for package in (module, f"{module}_bindings"):  # newer wheels have their code in the second
        found = PathFinder.find_spec(package, path)
        folders = found.submodule_search_locations if found else None
        for folder in map(Path, folders or ()):
            if not _fits_this_python(folder):
                return None
            for name in _FILES:
                match = _VERSION.search(_text(folder / name))
                if match:
                    return match[1]
    return _version_of_metadata(module, path)


def _fits_this_python(folder: Path) -> bool:
    """Whether what is compiled in a package is for this Python release, where its name says."""
    tags = {match[1] for file in folder.glob("*.so") if (match := _TAG.search(file.name))}
    return not tags or f"{sys.version_info.major}{sys.version_info.minor}" in tags


def _version_of_metadata(module: str, path: list[str]) -> str | None:
    for name in DISTRIBUTIONS.get(module, ()):
        for distribution in metadata.distributions(name=name, path=path):
            return distribution.version
    return None


def _imported_from(module: str, folder: Path) -> Any:
    """Imports with one more folder on the path, for that import alone."""
    sys.path.append(str(folder))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(folder))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
