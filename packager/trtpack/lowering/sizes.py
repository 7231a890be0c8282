# SPDX-License-Identifier: Apache-2.0
"""Sizes compared as expressions, which adds no guard to a symbolic one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


def size(value: Any) -> Any:
    """A size as what can be compared: its expression, or itself where it is a number."""
    return value.node.expr if isinstance(value, torch.SymInt) else value


def sizes(shape: Iterable[Any]) -> tuple[Any, ...]:
    """Every size of a shape as what can be compared."""
    return tuple(size(value) for value in shape)


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two values have one type and, whatever the sizes are, one shape."""
    return a.dtype == b.dtype and sizes(a.shape) == sizes(b.shape)
