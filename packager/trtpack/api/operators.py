# SPDX-License-Identifier: Apache-2.0
"""Operators, one or more, as Python names them and as the options do."""

from __future__ import annotations

from typing import Any


def operator_name(value: Any) -> Any:
    """``aten.add.Tensor`` of that operator itself, of ``torch.ops.aten.add.Tensor`` or of both as
    text; anything else as it is."""
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, str) or hasattr(value, "_schema") or hasattr(value, "_overload_names"):
        return text.removeprefix("torch.ops.")
    return value


def items(value: Any) -> tuple[Any, ...]:
    """One or more as a tuple, of a set in the order of their names."""
    if isinstance(value, set | frozenset):
        return tuple(sorted(value, key=str))
    if isinstance(value, list | tuple):
        return tuple(value)
    return (value,)
