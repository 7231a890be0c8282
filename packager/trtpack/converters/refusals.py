# SPDX-License-Identifier: Apache-2.0
"""How a converter refuses, and reasons that several families share."""

from __future__ import annotations

from trtpack.target import Target
from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

SIZED_BY_DATA = "the size of its result depends on data, so it runs in PyTorch between engines"
NO_LAYER_SIZED_BY_DATA = (
    "the size of its result depends on data, for which TensorRT-RTX has no layer, so it runs in "
    "PyTorch between engines"
)
NOT_SIZED_BY_DATA_BEFORE_10 = (
    "the size of its result depends on data; TensorRT 8 cannot make room for such an engine whose "
    "inputs are fixed, and builds no layers behind it, so it runs in PyTorch between engines"
)


class Refused(Exception):
    """Raised by a converter that finds, while converting, that TensorRT cannot do it."""


def unless_floats(**arguments: object) -> str | None:
    """Refuses tensors that are no floats."""
    for value in arguments.values():
        if isinstance(value, Tensor) and value.dtype not in FLOATS:
            return f"TensorRT computes this in floats only, got {DTYPES[value.dtype].torch}"
    return None


def unless_sized_by_data(*, target: Target, **_: object) -> str | None:
    """Refuses results as long as the data says where the target's TensorRT has no such layers.

    Before 10.0 it has them, but engines with them fail (measured on 8.6): without inputs of open
    size no execution context is made, and a gather by the places found is not built.
    """
    if target.engine_kind == "tensorrt-rtx":
        return NO_LAYER_SIZED_BY_DATA
    return None if target.tensorrt_at_least("10.0") else NOT_SIZED_BY_DATA_BEFORE_10


def first_reason(*reasons: str | None) -> str | None:
    """The first reason there is, None if there is none."""
    return next((reason for reason in reasons if reason), None)
