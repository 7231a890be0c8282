# SPDX-License-Identifier: Apache-2.0
"""What a cell depends on, as one digest: while it stays the same, so does what comes out."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from trtpack_runtime import __version__

from ..errors import ConfigError
from ..options import Options, SampleFile
from ..target import Target
from .file import Model

_PACKAGES = {"torchvision": "torchvision", "timm": "timm", "hf": "transformers"}
_WITHOUT_EFFECT = ("name", "notes", "peak", "unsupported")


def content_key(
    model: Model, target: Target, options: Options, arguments: tuple[tuple[str, ...], ...]
) -> str:
    """The digest of everything that a cell's bundle, and its test, are made of.

    The model's source files and weights by content, sample files, options, the target's facts, and
    the releases of trtpack, PyTorch, TensorRT-RTX and of the package that a model comes from.

    Errors: ConfigError for a file that is not there.
    """
    prefix = model.model.partition(":")[0]
    packages = ["torch", *filter(None, [_PACKAGES.get(prefix)])]
    if target.engine_kind == "tensorrt-rtx":
        packages.append("tensorrt_rtx")
    facts = dataclasses.asdict(target)
    for name in _WITHOUT_EFFECT:
        facts.pop(name)
    files = sorted(set(_files(model, options)))
    whole = {
        "schema": "trtpack.cell/1",
        "trtpack": __version__,
        "packages": {name: _version(name) for name in packages},
        "target": facts,
        "model": model.model,
        "arguments": arguments,
        "files": {str(path): _digest(path) for path in files},
    }
    text = json.dumps(whole, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _files(model: Model, options: Options) -> Iterator[Path]:
    yield from _source_files(model.model)
    yield from filter(None, (options.weights, options.tactics))
    for given in options.inputs:
        if isinstance(given, SampleFile):
            yield from _within(given.path)
    metric = (options.metric or "").rpartition(":")[0]
    for module in (*options.converters, *filter(None, [metric])):
        yield from _module_files(module)
    for pattern in model.files:
        if Path(pattern).is_absolute():
            raise ConfigError(f"files: {pattern} is absolute", hint="write it from this folder on")
        found = list(Path().glob(pattern))
        if not found:
            raise ConfigError(f"files: nothing is called {pattern}", hint="correct the pattern")
        for path in found:
            yield from _within(path)


def _source_files(argument: str) -> Iterator[Path]:
    """The files of a MODEL argument; none of torchvision's or timm's, whose release tells."""
    prefix, colon, rest = argument.partition(":")
    if prefix == "hf" and colon:
        yield from _within(Path(rest))
    elif prefix in _PACKAGES and colon:
        return
    elif argument.endswith(".pt2"):
        yield Path(argument)
    else:
        yield from _module_files(argument.rpartition(":")[0] or argument)


def _module_files(name: str) -> Iterator[Path]:
    """A ``.py`` file and what it imports from its own folder, or all code of a package."""
    if name.endswith(".py"):
        yield from _with_imports(Path(name))
        return
    top = name.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        beside = Path(*name.split("."))
        candidates = [beside.with_suffix(".py"), Path(top)]
        places = [path for path in candidates if path.exists()]
        if not places:
            raise ConfigError(f"there is no module {name}", hint="check the model")
    elif spec.submodule_search_locations:
        places = [Path(place) for place in spec.submodule_search_locations]
    else:
        places = [Path(spec.origin)] if spec.origin and Path(spec.origin).is_file() else []
    for place in places:
        yield from sorted(place.rglob("*.py")) if place.is_dir() else _with_imports(place)


def _with_imports(path: Path) -> Iterator[Path]:
    found: list[Path] = [path]
    for file in found:
        if not file.is_file():
            raise ConfigError(f"there is no file {file}", hint="check the model")
        for name in _imported(file):
            parts = name.split(".")
            for count in range(1, len(parts) + 1):
                near = path.parent.joinpath(*parts[:count])
                for candidate in (near.with_suffix(".py"), near / "__init__.py"):
                    if candidate.is_file() and candidate not in found:
                        found.append(candidate)
    yield from found


def _imported(path: Path) -> Iterator[str]:
    """Every module that a file's statements name, ``a.b`` for ``from a import b`` too."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # the build says so, with the line
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (f"{module}.{alias.name}".strip(".") for alias in node.names)


def _within(path: Path) -> Iterable[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path]


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check the path") from error


@cache
def _version(package: str) -> Any:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
