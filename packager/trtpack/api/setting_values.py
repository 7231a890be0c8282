# SPDX-License-Identifier: Apache-2.0
"""The value of one setting: read from what its flag takes, and held against its type and bounds."""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from ..accuracy.reading import parse_budget, parse_drop
from ..errors import ConfigError
from ..inputs import parse_input, parse_profile, parse_size
from ..options import Options
from ..precision.names import parse_pin
from .operators import items, operator_name

FIELDS = tuple(field.name for field in dataclasses.fields(Options))
_HINTS = typing.get_type_hints(Options)
_EMPTY = {field.name: field.default for field in dataclasses.fields(Options)}

_TEXTS: Mapping[str, Callable[[str], Any]] = {
    "inputs": parse_input,
    "profiles": parse_profile,
    "pins": parse_pin,
    "budgets": parse_budget,
    "max_drop": parse_drop,
    "workspace_bytes": parse_size,
}
"""What reads the text of a setting, or of each of its items."""

Bounds = tuple[float | None, float | None]

BOUNDS: Mapping[str, Bounds] = {
    "seed": (0, None),
    "samples": (1, 64),
    "min_block_size": (1, None),
    "calibration_samples": (1, None),
    "weight_block": (1, None),
    "workspace_bytes": (0, None),
    "optimization_level": (0, 5),
    "avg_timing_iterations": (1, None),
    "dla_core": (0, None),
    "threads": (1, None),
    "trials": (1, None),
    "lease_timeout_s": (0, None),
}
"""The least and the most that a number may be."""

ABOVE_ZERO = frozenset({"max_latency_ms", "max_memory_mb", "cool_below_c", "budget_minutes"})


def read_setting(name: str, value: Any) -> Any:
    """A value of the type that ``Options`` has for it.

    Raises:
        ConfigError: it is of another type, beyond its bounds, or text that cannot be read.
    """
    hint = _HINTS[name]
    if typing.get_origin(hint) is tuple:
        return tuple(_one(name, item, typing.get_args(hint)[0]) for item in items(value))
    return _one(name, value, hint)


def _one(name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, str) and name in _TEXTS:
        value = _TEXTS[name](value)
    elif name == "dtype" and value is not None:
        value = str(value).removeprefix("torch.")
    elif name in ("torch_ops", "trt_ops"):
        value = operator_name(value)
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (UnionType, typing.Union) else ()
    for kind in kinds or (hint,):
        taken, read = _as(kind, value)
        if taken:
            _check_bounds(name, read)
            return read
    raise ConfigError(
        f"{name} is {value!r}, wanted {' or '.join(map(_told, kinds or (hint,)))}",
        hint=f"correct {name}",
    )


def _as(kind: Any, value: Any) -> tuple[bool, Any]:
    """Whether a value is of a kind, and the value as one."""
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return value in typing.get_args(kind), value
    if kind is Path:
        return (True, Path(value)) if isinstance(value, str | os.PathLike) else (False, value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool), value
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if origin in (UnionType, typing.Union):
        return any(_as(part, value)[0] for part in typing.get_args(kind)), value
    return isinstance(value, origin or kind), value


def _check_bounds(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise ConfigError(f"{name} is {value}, wanted a finite number", hint=f"correct {name}")
    low, high = BOUNDS.get(name, (None, None))
    if name in ABOVE_ZERO and value <= 0:
        raise ConfigError(f"{name} is {value}, wanted more than 0", hint=f"correct {name}")
    if low is not None and value < low:
        raise ConfigError(f"{name} is {value}, wanted at least {low}", hint=f"correct {name}")
    if high is not None and value > high:
        raise ConfigError(f"{name} is {value}, wanted at most {high}", hint=f"correct {name}")


def _told(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(map(repr, typing.get_args(kind)))
    if kind is NoneType:
        return "None"
    return str(getattr(kind, "__name__", kind))
