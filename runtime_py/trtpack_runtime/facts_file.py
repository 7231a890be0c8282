# SPDX-License-Identifier: Apache-2.0
"""The facts of another machine, as ``trtpack doctor --json`` writes them there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .checked_json import MalformedError, Place, parse
from .device import SCHEMA
from .errors import ConfigError

_SCHEMA = re.compile(r"trtpack\.facts/(\d+)")
_SM = re.compile(r"\d+\.\d+")
_WRITE = "write it with: trtpack doctor --json"


def read_facts(path: Path) -> dict[str, Any]:
    """The facts in a file; keys that are not known here are left as they are.

    Facts without ``schema`` are those of a runtime before it had one, and are read as well.

    Raises:
        ConfigError: there is no such file, it holds something else, or facts of a newer runtime.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"cannot read {path}: {reason}", hint=_WRITE) from error
    try:
        return facts_from(parse(data))
    except MalformedError as error:
        raise ConfigError(f"{path} holds no facts of a machine: {error}", hint=_WRITE) from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error


def facts_from(value: Any) -> dict[str, Any]:
    """The facts of plain JSON values, with what older runtimes left out.

    Raises:
        MalformedError: something decides about engines and is missing or of another kind.
        ConfigError: they are of a newer form.
    """
    top = Place(value)
    _check_schema(top)
    if "torch" not in top.object():  # null where there is none
        raise MalformedError("torch is missing")
    for name in ("os", "arch"):
        top[name].string()
    for name in ("torch", "tensorrt", "tensorrt_rtx", "tensorrt_cuda", "torch_cuda", "runtime"):
        if (version := top.get(name)) is not None:
            version.string()
    for flag in top["cpu"]["flags"].items():
        flag.string()
    for gpu in top["gpus"].items():
        _check_gpu(gpu)
    for name, keys in (("driver", ("version", "cuda")), ("jetson", ("module", "l4t", "jetpack"))):
        if (found := top.get(name)) is not None:
            _check_texts(found, keys)
    if (problems := top.get("problems")) is not None:
        problems.each(Place.string)
    known = ("torch", "tensorrt", "tensorrt_rtx", "driver", "jetson")
    return {**dict.fromkeys(known), "problems": [], **top.object()}


def _check_schema(top: Place) -> None:
    schema = top.get("schema")
    if schema is None:
        return
    match = _SCHEMA.fullmatch(schema.string())
    if match is None:
        schema.wrong(SCHEMA)
    if schema.value != SCHEMA:
        raise ConfigError(
            f"these are facts of the form {schema.value}, this runtime reads {SCHEMA}",
            hint="update trtpack-runtime on this machine",
        )


def _check_gpu(gpu: Place) -> None:
    gpu["name"].string()
    if not _SM.fullmatch(gpu["sm"].string()):
        gpu["sm"].wrong('a compute capability such as "8.7"')
    for name in ("index", "memory_bytes", "multiprocessors"):
        if (number := gpu.get(name)) is not None:
            number.integer()


def _check_texts(place: Place, names: tuple[str, ...]) -> None:
    place.object()
    for name in names:
        if (text := place.get(name)) is not None:
            text.string()
