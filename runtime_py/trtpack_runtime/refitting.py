# SPDX-License-Identifier: Apache-2.0
"""Which engines can be given other weights. Needs no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .engines._widened import is_widened
from .network import Network

_REPLACEABLE = frozenset({"FLOAT", "HALF", "BF16", "FP8", "INT8"})
"""The types of weights that ``engines/_emit.py`` makes replaceable."""

_NAMELESS = "power"
"""The operand whose weights have no name in an engine, by which they could be replaced."""

_INLINED = 8
"""A vector of so many numbers, or one number, is part of an AOTInductor library's code."""


def refit_problem(
    network: Network, changed: frozenset[str], record: Mapping[str, Any]
) -> str | None:
    """Why an engine cannot be given the changed tensors by their names; None where it can.

    ``record`` is the engine's compatibility record.
    """
    widened = is_widened(network) and _is_weak(record)
    forms: dict[str, set[tuple[Any, ...]]] = {}
    for constant in network.constants.values():
        forms.setdefault(constant.data, set()).add((constant.dtype, math.prod(constant.shape)))
    nameless = {layer.operands.get(_NAMELESS) for layer in network.layers}
    for constant in network.constants.values():
        if constant.data not in changed:
            continue
        if constant.name in network.constants_scaled():
            return f"{constant.data} is quantized or a scale, which stays inside engines"
        if constant.dtype not in _REPLACEABLE:
            return f"{constant.data} is {constant.dtype}, which stays inside engines"
        if widened and constant.dtype in ("HALF", "BF16"):
            return f"{constant.data} is {constant.dtype}, which that release has in FLOAT inside"
        if constant.name in nameless or len(forms[constant.data]) > 1:
            return f"{constant.data} has no name of its own in it"
    return None


def _is_weak(record: Mapping[str, Any]) -> bool:
    """Whether TensorRT was held to types layer by layer, as ``engines/_weak.py`` does."""
    if "tensorrt" not in record:  # TensorRT-RTX never is
        return False
    major = int(str(record["tensorrt"]).split(".")[0])
    has_dla = (record.get("options") or {}).get("dla_core") is not None
    return major < (11 if has_dla else 10)


def is_inlined(shape: Sequence[int]) -> bool:
    """Whether AOTInductor makes a stored tensor of this shape a part of its code."""
    return not shape or (len(shape) == 1 and shape[0] <= _INLINED)
