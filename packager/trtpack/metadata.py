# SPDX-License-Identifier: Apache-2.0
"""Reads ``--meta``: labels, image preprocessing and whatever else travels in a bundle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import ConfigError

PREPROCESS_KEYS: Mapping[str, str] = {
    "resize": "the shorter side, or [height, width]",
    "crop": "the side of a centred square, or [height, width]",
    "interpolation": "bilinear, bicubic, nearest or lanczos",
    "channels": "RGB, BGR or L",
    "scale": "a factor for 0 to 255",
    "mean": "a number, or one per channel",
    "std": "a number above 0, or one per channel",
    "layout": "NCHW or NHWC",
}
"""What ``preprocess`` may give, applied in this order, and how."""

_WORDS = {
    "interpolation": ("bilinear", "bicubic", "nearest", "lanczos"),
    "channels": ("RGB", "BGR", "L"),
    "layout": ("NCHW", "NHWC"),
}


def read_metadata(paths: Iterable[Path]) -> dict[str, Any]:
    """The objects of all files as one; a file that is a list of names is taken as ``labels``.

    Raises:
        ConfigError: an unreadable file, a key in two files, labels or preprocessing that are wrong.
    """
    found: dict[str, Any] = {}
    for path in paths:
        content = _read(path)
        if isinstance(content, list):
            content = {"labels": content}
        if not isinstance(content, dict):
            raise ConfigError(
                f"{path} holds {_kind(content)}, not an object",
                hint='write {"labels": [...], "preprocess": {...}}',
            )
        for key in found.keys() & content.keys():
            raise ConfigError(f"{path} gives {key} a second time", hint=f"give {key} in one file")
        _check(content, path)
        found.update(content)
    return found


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no metadata file {path}", hint="check the path after --meta"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", hint="check the path after --meta"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}", hint="correct the file") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check(content: Mapping[str, Any], path: Path) -> None:
    labels = content.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ConfigError(
            f"labels in {path} are not a list of strings",
            hint='write "labels": ["first class", "second class"]',
        )
    preprocess = content.get("preprocess", {})
    if not isinstance(preprocess, dict):
        raise ConfigError(
            f"preprocess in {path} is {_kind(preprocess)}, not an object",
            hint=f"give it some of {', '.join(PREPROCESS_KEYS)}",
        )
    for key, value in preprocess.items():
        if key not in PREPROCESS_KEYS:
            raise ConfigError(
                f"preprocess in {path} has the unknown step {key!r}",
                hint=f"choose from {', '.join(PREPROCESS_KEYS)}",
            )
        if not _fits(key, value):
            raise ConfigError(
                f"preprocess.{key} in {path} is {json.dumps(value)}",
                hint=f"give {PREPROCESS_KEYS[key]}",
            )


def _fits(key: str, value: Any) -> bool:
    if key in _WORDS:
        return value in _WORDS[key]
    if key == "scale":
        return _is_number(value)
    if key in ("resize", "crop"):
        sizes = value if isinstance(value, list) else [value]
        whole = all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sizes)
        return whole and len(sizes) in ((2,) if isinstance(value, list) else (1,))
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(_is_number(v) and (key != "std" or v > 0) for v in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
