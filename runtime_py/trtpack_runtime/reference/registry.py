# SPDX-License-Identifier: Apache-2.0
"""The registry of evaluating functions, one a layer kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Kernel = Callable[..., Any]
F = TypeVar("F", bound=Kernel)

KERNELS: dict[str, Kernel] = {}


def kernel(function: F) -> F:
    """Registers the evaluator of the kind the function is named after.

    Its parameters are the kind's operands, as tensors, and its attributes, sizes as numbers; a
    default is TensorRT's own. It answers a tensor, or a tuple for a kind of several outputs.
    """
    if function.__name__ in KERNELS:
        raise ValueError(f"two evaluators for {function.__name__}")
    KERNELS[function.__name__] = function
    return function
