# SPDX-License-Identifier: Apache-2.0
"""Operators as Python names them, as the options do."""

from __future__ import annotations

from typing import Any


def operator_name(value: Any) -> Any:
    """``aten.add.Tensor`` of that operator itself, of ``torch.ops.aten.add.Tensor`` or of both as
    text; anything else as it is."""
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, str) or hasattr(value, "_schema") or hasattr(value, "_overload_names"):
        return text.removeprefix("torch.ops.")
    return value
