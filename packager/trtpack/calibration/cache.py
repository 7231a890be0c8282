# SPDX-License-Identifier: Apache-2.0
"""What a calibration found, as a file: other builds of the same model need no data then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import fx

from trtpack_runtime.atomic import replaced

from ..capture import constant_of
from ..errors import CalibrationError, ConfigError
from .request import Calibrated, Quantization

SCHEMA = "trtpack.calibration/1"


def graph_key(module: fx.GraphModule) -> str:
    """A digest of a lowered graph and every number of its constants."""
    digest = hashlib.sha256()
    for node in module.graph.nodes:
        digest.update(f"{node.op} {node.name} {node.target} {node.args} {node.kwargs}\n".encode())
        value = constant_of(node)
        if value is not None:
            numbers = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(numbers.numpy().data)
    return digest.hexdigest()


def read_cache(path: Path, key: str, asked: Quantization) -> dict[str, float]:
    """The reaches of a model's values.

    Raises:
        CalibrationError: the file is damaged, or of another model, type or observer: wanted, has.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["schema"] != SCHEMA:
            raise ValueError(f"its schema is {found['schema']!r}")
        reaches = {str(name): float(value) for name, value in found["reaches"].items()}
        has = (found["key"], found["type"], found["observer"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibrationError(
            f"cannot read the calibration cache {path}: {error}",
            hint="remove it, and give the data with --calibrate",
        ) from error
    wanted = (key, asked.dtype, asked.observer)
    for what, want, got in zip(("model", "type", "observer"), wanted, has, strict=True):
        if want != got:
            raise CalibrationError(
                f"the calibration cache {path} is of another {what}: wanted {_short(want)}, "
                f"has {_short(got)}",
                hint="name another file, or remove this one and give the data with --calibrate",
            )
    return reaches


def write_cache(path: Path, key: str, made: Calibrated) -> None:
    """Keeps what was found; the file appears whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    kept: Mapping[str, object] = {
        "schema": SCHEMA,
        "key": key,
        "type": made.dtype,
        "observer": made.observer,
        "samples": made.samples,
        "reaches": made.reaches,
    }
    try:
        with replaced(path) as file:
            file.write(json.dumps(kept, indent=1).encode() + b"\n")
    except OSError as error:
        raise ConfigError(
            f"cannot write the calibration cache {path}: {error.strerror}",
            hint="choose another file with --calibration-cache",
        ) from error


def _short(text: object) -> str:
    return str(text)[:12]
