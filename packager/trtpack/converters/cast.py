# SPDX-License-Identifier: Apache-2.0
"""Changes of type, and copies, which a network does not need.

Shapes: any, dynamic dims included.
Dtypes: all TensorRT has; a float becomes an integer by truncation, a bool by comparing with 0.
"""

from __future__ import annotations

from typing import Any

import torch

from trtpack_runtime.dtypes import by_torch
from trtpack_runtime.network import Tensor

from .context import Context
from .registry import converter

aten = torch.ops.aten


@converter(aten._to_copy.default)
def to_copy(ctx: Context, self: Tensor, **_: Any) -> Tensor:
    """_to_copy(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None, bool non_blocking=False, MemoryFormat? memory_format=None) -> Tensor
    """
    return ctx.cast(self, ctx.result.dtype)


@converter(torch.ops.prims.convert_element_type.default)
def convert_element_type(ctx: Context, a: Tensor, dtype: Any) -> Tensor:
    """convert_element_type(Tensor a, ScalarType dtype) -> Tensor"""
    return ctx.cast(a, ctx.result.dtype)


def _other_bits(*, self: Tensor, dtype: torch.dtype, **_: object) -> str | None:
    if by_torch(dtype).name == self.dtype or (self.dtype == "BOOL" and dtype == torch.uint8):
        return None
    return "reads the bits of a number as another type; every cast of TensorRT keeps the number"


@converter(aten.view.dtype, when=_other_bits)
def view_as_type(ctx: Context, self: Tensor, dtype: torch.dtype) -> Tensor:
    """view.dtype(Tensor(a) self, ScalarType dtype) -> Tensor(a)

    Errors: another type is refused, but for truth values as uint8, whose bits are 0 and 1.
    """
    return ctx.cast(self, ctx.result.dtype)


@converter(aten.copy.default)
def copy_into(ctx: Context, self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """copy(Tensor self, Tensor src, bool non_blocking=False) -> Tensor

    ``src`` in the type and shape of ``self``.
    """
    return ctx.expand(ctx.cast(src, ctx.result.dtype), ctx.result.shape)


def _trains(*, train: bool | None, **_: Any) -> str | None:
    return "it drops elements, as in training" if train else None


@converter(aten.native_dropout.default, when=_trains)
def native_dropout(
    ctx: Context, input: Tensor, p: float, train: bool | None
) -> tuple[Tensor, None]:
    """native_dropout(Tensor input, float p, bool? train) -> (Tensor, Tensor)"""
    return input, None


@converter(
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
    aten.contiguous.default,
)
def copy(ctx: Context, self: Tensor, **_: Any) -> Tensor:
    """clone(Tensor self, *, MemoryFormat? memory_format=None) -> Tensor
    alias(Tensor(a) self) -> Tensor(a)
    detach(Tensor(a) self) -> Tensor(a)
    lift_fresh_copy(Tensor self) -> Tensor
    contiguous(Tensor(a) self, *, MemoryFormat memory_format=0) -> Tensor(a)
    """
    return self
