# SPDX-License-Identifier: Apache-2.0
"""How a converter refuses, and reasons that several families share."""

from __future__ import annotations

from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

SIZED_BY_DATA = "the size of its result depends on data, so it runs in PyTorch between engines"
BOOLEAN_INDEX = (
    "a boolean index picks a number of elements that depends on data, so it runs in PyTorch "
    "between engines"
)


class Refused(Exception):
    """Raised by a converter that finds, while converting, that TensorRT cannot do it."""


def unless_floats(**arguments: object) -> str | None:
    """Refuses tensors that are no floats."""
    for value in arguments.values():
        if isinstance(value, Tensor) and value.dtype not in FLOATS:
            return f"TensorRT computes this in floats only, got {DTYPES[value.dtype].torch}"
    return None


def first_reason(*reasons: str | None) -> str | None:
    """The first reason there is, None if there is none."""
    return next((reason for reason in reasons if reason), None)
