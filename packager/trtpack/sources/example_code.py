# SPDX-License-Identifier: Apache-2.0
"""Writes example inputs as Python, for the user to copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..options import InputSpec
from .examples import BoundInputs, Call, integer_range


def code_of_specs(bound: BoundInputs) -> str:
    """The arguments of a call with tensors as the specs describe them, at their optimum sizes."""
    parts = [_spec(spec) for spec in bound.args]
    return ", ".join([*parts, *(f"{name}={_spec(s)}" for name, s in bound.kwargs.items())])


def code_of_call(call: Call) -> str:
    """The arguments of a call like ``call``, its tensors replaced by random ones."""
    args, kwargs = call
    return ", ".join([*map(_value, args), *(f"{name}={_value(v)}" for name, v in kwargs.items())])


def _spec(spec: InputSpec) -> str:
    shape, dtype = spec.optimum, spec.dtype or "float32"
    if "float" in dtype:
        if spec.low is None or spec.high is None:
            return _floats("randn", shape, dtype)
        scale = "" if spec.high - spec.low == 1 else f" * {spec.high - spec.low:g}"
        offset = "" if spec.low == 0 else f" + {spec.low:g}"
        return f"{_floats('rand', shape, dtype)}{scale}{offset}"
    return _integers(*integer_range(spec), shape, dtype)


def _value(value: Any) -> str:
    if isinstance(value, Tensor):
        dtype, shape = str(value.dtype).removeprefix("torch."), tuple(value.shape)
        if value.is_floating_point() or value.is_complex():
            return _floats("randn", shape, dtype)
        if value.numel() == 0:
            return f"torch.empty({shape}, dtype=torch.{dtype})"
        return _integers(int(value.min()), int(value.max()) + 1, shape, dtype)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return "(" + ", ".join(map(_value, value)) + ",)"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_value, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)


def _floats(function: str, shape: tuple[int, ...], dtype: str) -> str:
    typed = "" if dtype == "float32" else f"dtype=torch.{dtype}"
    sizes = ", ".join(map(str, shape)) or "()"
    return f"torch.{function}({', '.join(p for p in (sizes, typed) if p)})"


def _integers(low: int, high: int, shape: tuple[int, ...], dtype: str) -> str:
    if dtype == "bool":
        return f"torch.randint({low}, {high}, {shape}).bool()"
    typed = "" if dtype == "int64" else f", dtype=torch.{dtype}"
    if (low, high) in ((0, 1), (1, 2)):
        function = "ones" if low else "zeros"
        return f"torch.{function}({shape}, dtype=torch.{dtype})"
    return f"torch.randint({low}, {high}, {shape}{typed})"
