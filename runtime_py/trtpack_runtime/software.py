# SPDX-License-Identifier: Apache-2.0
"""The software that bundles need, found without importing any: PyTorch, CUDA, every TensorRT."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from .engines import _find

_CUDA_OF_TORCH = re.compile(
    r"""^cuda\s*(?::[^=\n]+)?=\s*(?:["']([\d.]+)["']|None)\s*$""", re.MULTILINE
)
_LIBRARIES = ("usr/lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/local/tensorrt/lib")
_LIBRARY = re.compile(r"libnvinfer\.so\.(\d+\.\d+\.\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Found:
    """One TensorRT: ``what`` is the Python module or ``libnvinfer``, ``where`` its folder."""

    what: str
    version: str
    where: str


def cuda_of_torch(path: list[str] | None = None) -> str | None:
    """The CUDA that the installed PyTorch was built for ("12.6"); None where it has none, or where
    its package does not tell."""
    spec = PathFinder.find_spec("torch", path)
    for folder in spec.submodule_search_locations or () if spec else ():
        match = _CUDA_OF_TORCH.search(_text(Path(folder) / "version.py"))
        if match:
            return match[1]
    return None


def cuda_toolkit(root: Path = Path("/")) -> str | None:
    """The CUDA toolkit or runtime in ``/usr/local/cuda``; a driver serves others as well."""
    folder = root / "usr/local/cuda"
    try:
        return str(json.loads(_text(folder / "version.json"))["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        match = re.search(r"CUDA Version (\d+(?:\.\d+)+)", _text(folder / "version.txt"))
        return match[1] if match else None


def every_tensorrt(root: Path = Path("/")) -> tuple[Found, ...]:
    """Each TensorRT and TensorRT-RTX that can be seen; the first of a module is what is used."""
    return tuple(dict.fromkeys((*_modules(root), *_libraries(root))))


def _modules(root: Path) -> Iterator[Found]:
    for module in ("tensorrt", "tensorrt_rtx"):
        folders = [*map(Path, sys.path), *_find.system_folders(root)]
        for folder in dict.fromkeys(folders):
            found = _find.find(module, root / "nowhere", [str(folder)])
            if found is not None:
                yield Found(module, found.version, str(folder))


def _libraries(root: Path) -> Iterator[Found]:
    for folder in _LIBRARIES:
        names = sorted(path.name for path in (root / folder).glob("libnvinfer.so.*"))
        for name in names:
            if match := _LIBRARY.fullmatch(name):
                yield Found("libnvinfer", match[1], f"/{folder}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
