# SPDX-License-Identifier: Apache-2.0
"""Operators and literal arguments of stored ATen graphs by name.

Beside JSON's own literals: ``{"dtype": "FLOAT"}``, ``{"memory_format": ...}``, ``{"layout": ...}``,
``{"float": "inf"}``, ``{"complex": [re, im]}``.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from .dtypes import DTYPES
from .errors import BundleError

SYMBOLIC: Mapping[str, Callable[..., Any]] = {
    "sym.add": operator.add,
    "sym.sub": operator.sub,
    "sym.mul": operator.mul,
    "sym.floordiv": operator.floordiv,
    "sym.truediv": operator.truediv,
    "sym.mod": operator.mod,
    "sym.pow": operator.pow,
    "sym.neg": operator.neg,
    "sym.min": torch.sym_min,
    "sym.max": torch.sym_max,
    "sym.float": torch.sym_float,
    "sym.int": torch.sym_int,
    "sym.floor": math.floor,
    "sym.ceil": math.ceil,
    "sym.eq": operator.eq,
    "sym.ne": operator.ne,
    "sym.lt": operator.lt,
    "sym.le": operator.le,
    "sym.gt": operator.gt,
    "sym.ge": operator.ge,
}

COND: Any = torch.ops.higher_order.cond
_PLAIN: Mapping[str, Callable[..., Any]] = {"getitem": operator.getitem, "cond": COND}

_REFUSED = frozenset({"aten.from_file.default"})
"""Operators that reach outside the program's tensors; a bundle is data and may not hold them."""

_OP_NAME = re.compile(r"\w+\.\w+\.\w+")


def operator_named(name: str) -> Callable[..., Any]:
    """The function a stored graph calls ``name``.

    Raises:
        BundleError: this PyTorch lacks it, or no bundle may call it.
    """
    if name in _PLAIN:
        return _PLAIN[name]
    if name in SYMBOLIC:
        return SYMBOLIC[name]
    if not _OP_NAME.fullmatch(name) or name in _REFUSED:
        raise BundleError(
            f"a bundle may not call {name!r}", hint="use bundles from a source you trust"
        )
    namespace, op, overload = name.split(".")
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), op), overload)
    except (AttributeError, RuntimeError):
        found = None
    if isinstance(found, torch._ops.OpOverload):
        return found
    if namespace in ("aten", "prims"):
        hint = "update PyTorch on this device"
    else:
        hint = "load the module that registers it with --import MODULE"
    raise BundleError(f"PyTorch {torch.__version__} has no operator {name} here", hint=hint)


def from_json(value: Mapping[str, Any]) -> Any:
    """A literal that is a JSON object; ValueError for others."""
    match value:
        case {"float": str(text)}:
            return float(text)
        case {"complex": [real, imag]}:
            parts = [from_json(p) if isinstance(p, dict) else float(p) for p in (real, imag)]
            return complex(*parts)
        case {"dtype": str(name)}:
            return _torch_constant(DTYPES[name].torch if name in DTYPES else name, torch.dtype)
        case {"memory_format": str(name)}:
            return _torch_constant(name, torch.memory_format)
        case {"layout": str(name)}:
            return _torch_constant(name, torch.layout)
    raise ValueError(f"not an argument: {value!r}")


def _torch_constant(name: str, kind: type) -> Any:
    value = getattr(torch, name, None)
    if not isinstance(value, kind):
        raise ValueError(f"{name!r} is no {kind.__name__}")
    return value
