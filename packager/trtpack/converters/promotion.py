# SPDX-License-Identifier: Apache-2.0
"""PyTorch's rules of type promotion over described tensors and Python numbers."""

from __future__ import annotations

from typing import Any

import torch

from trtpack_runtime import dims
from trtpack_runtime.dtypes import DTYPES, by_torch
from trtpack_runtime.network import Tensor

Number = dims.Dim | float
"""What a Scalar argument of an operator may be given as."""

Operand = Tensor | Number
"""What a Tensor argument may be given as: models add sizes and numbers to tensors."""

_SMALL = {"UINT8", "INT8"}


def common_dtype(a: Operand, b: Operand) -> str:
    """The type both operands are converted to before they meet."""
    return by_torch(torch.result_type(_example(a), _example(b))).name


def wide(dtype: str) -> str:
    """The type eager PyTorch computes in before it rounds to ``dtype``; int32 wraps to uint8."""
    return {"HALF": "FLOAT", "BF16": "FLOAT", "UINT8": "INT32"}.get(dtype, dtype)


def computed(dtype: str) -> str:
    """``dtype`` itself where TensorRT computes in it; int32 for uint8."""
    return "INT32" if dtype == "UINT8" else dtype


def needs_wider_integers(**arguments: Any) -> str | None:
    """Refuses arithmetic among 8-bit integers alone; a float beside them makes it float32."""
    types = [a.dtype for a in arguments.values() if isinstance(a, Tensor)]
    meets_float = any(isinstance(a, float) for a in arguments.values())
    if all(t in _SMALL for t in types) and not meets_float:
        return f"TensorRT does not compute in {DTYPES[types[0]].torch}"
    return None


def needs_wider_signed_integers(**arguments: Any) -> str | None:
    """Refuses arithmetic among int8 alone; uint8 is computed in int32 and wraps at the end."""
    if any(isinstance(a, Tensor) and a.dtype == "UINT8" for a in arguments.values()):
        return None
    return needs_wider_integers(**arguments)


def _example(operand: Operand) -> Any:
    if isinstance(operand, Tensor):
        dtype = getattr(torch, DTYPES[operand.dtype].torch)
        return torch.empty((1,) * operand.rank, dtype=dtype, device="meta")
    return 1 if isinstance(operand, dims.Expr) else operand
