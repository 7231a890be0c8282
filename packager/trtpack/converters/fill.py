# SPDX-License-Identifier: Apache-2.0
"""Tensors of one number, ramps, identity matrices.

Shapes: any, dynamic sizes included.
Dtypes: float32, float16, bfloat16, int32, int64, bool.
"""

from __future__ import annotations

from typing import Any

import torch

from trtpack_runtime.dims import Expr
from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import Number, Operand
from .registry import converter

aten = torch.ops.aten


@converter(aten.full.default, aten.full_like.default, aten.new_full.default)
def full(ctx: Context, fill_value: Operand, **_: Any) -> Tensor:
    """full(SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None,
    Device? device=None, bool? pin_memory=None) -> Tensor
    full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None,
    Device? device=None, bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
    new_full(Tensor self, SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None,
    Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor
    """
    number = ctx.operand(fill_value, ctx.result.dtype, ctx.result.rank)
    return ctx.expand(number, ctx.result.shape)


@converter(aten.fill.Scalar, aten.fill.Tensor)
def fill(ctx: Context, self: Tensor, value: Operand) -> Tensor:
    """fill.Scalar(Tensor self, Scalar value) -> Tensor
    fill.Tensor(Tensor self, Tensor value) -> Tensor
    """
    return full(ctx, value)


@converter(
    aten.zeros.default,
    aten.zeros_like.default,
    aten.new_zeros.default,
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.empty_permuted.default,
    aten.empty_strided.default,
    aten.new_empty_strided.default,
)
def zeros(ctx: Context, **_: Any) -> Tensor:
    """zeros(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None) -> Tensor
    zeros_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
    new_zeros(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None,
    Device? device=None, bool? pin_memory=None) -> Tensor
    empty.memory_format(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None,
    Device? device=None, bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
    empty_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
    new_empty(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None,
    Device? device=None, bool? pin_memory=None) -> Tensor

    What is empty holds zeros too: any numbers would do.
    """
    return full(ctx, 0)


@converter(aten.ones.default, aten.ones_like.default, aten.new_ones.default)
def ones(ctx: Context, **_: Any) -> Tensor:
    """ones(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None) -> Tensor
    ones_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
    new_ones(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None,
    Device? device=None, bool? pin_memory=None) -> Tensor
    """
    return full(ctx, 1)


@converter(aten.scalar_tensor.default)
def scalar_tensor(ctx: Context, s: Operand, **_: Any) -> Tensor:
    """scalar_tensor(Scalar s, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None) -> Tensor
    """
    return full(ctx, s)


@converter(aten.arange.default, aten.arange.start, aten.arange.start_step)
def arange(ctx: Context, end: Number, start: Number = 0, step: Number = 1, **_: Any) -> Tensor:
    """arange(Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None) -> Tensor
    arange.start(Scalar start, Scalar end, *, ScalarType? dtype=None, Layout? layout=None,
    Device? device=None, bool? pin_memory=None) -> Tensor
    arange.start_step(Scalar start, Scalar end, Scalar step=1, *, ScalarType? dtype=None,
    Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor

    A constant where all is known; a dynamic one goes in whole steps.
    """
    dtype = ctx.result.dtype
    if isinstance(start, Expr) or isinstance(end, Expr) or isinstance(step, Expr):
        whole = "INT64" if dtype in FLOATS else dtype
        first, by = (n if isinstance(n, Expr) else int(n) for n in (start, step))
        return ctx.cast(ctx.ramp(ctx.result.shape, (by,), first, dtype=whole), dtype)
    torch_dtype = getattr(torch, DTYPES[dtype].torch)
    return ctx.constant(torch.arange(start, end, step, dtype=torch_dtype), "range")


def _in_float64(start: Operand, end: Operand, dtype: torch.dtype | None, **_: Any) -> str | None:
    """Refuses whole numbers between ends that a run tells."""
    is_whole = dtype is not None and not dtype.is_floating_point
    if is_whole and any(isinstance(value, Tensor | Expr) for value in (start, end)):
        return "PyTorch computes whole steps in float64, which TensorRT has not"
    return None


@converter(
    aten.linspace.default,
    aten.linspace.Tensor_Tensor,
    aten.linspace.Tensor_Scalar,
    aten.linspace.Scalar_Tensor,
    when=_in_float64,
)
def linspace(ctx: Context, start: Operand, end: Operand, steps: int, **_: Any) -> Tensor:
    """linspace(Scalar start, Scalar end, int steps, *, ScalarType? dtype=None,
    Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor
    linspace.Tensor_Tensor(Tensor start, Tensor end, int steps, *, ScalarType? dtype=None,
    Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor
    linspace.Tensor_Scalar(Tensor start, Scalar end, ...) -> Tensor
    linspace.Scalar_Tensor(Scalar start, Tensor end, ...) -> Tensor

    The first half is counted from ``start``, the second from ``end``, as in PyTorch.
    """
    dtype = ctx.result.dtype
    if not isinstance(start, Tensor | Expr) and not isinstance(end, Tensor | Expr):
        torch_dtype = getattr(torch, DTYPES[dtype].torch)
        return ctx.constant(torch.linspace(start, end, steps, dtype=torch_dtype), "range")
    return _between(ctx, start, end, steps, dtype)


@converter(
    aten.logspace.default,
    aten.logspace.Tensor_Tensor,
    aten.logspace.Tensor_Scalar,
    aten.logspace.Scalar_Tensor,
    when=_in_float64,
)
def logspace(
    ctx: Context, start: Operand, end: Operand, steps: int, base: float = 10.0, **_: Any
) -> Tensor:
    """logspace(Scalar start, Scalar end, int steps, float base=10.0, *, ScalarType? dtype=None,
    Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor
    logspace.Tensor_Tensor(Tensor start, Tensor end, int steps, float base=10.0, *,
    ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None)
    -> Tensor
    logspace.Tensor_Scalar(Tensor start, Scalar end, ...) -> Tensor
    logspace.Scalar_Tensor(Scalar start, Tensor end, ...) -> Tensor

    ``base`` to the power of ``linspace`` in float32.
    """
    if not isinstance(start, Tensor | Expr) and not isinstance(end, Tensor | Expr):
        torch_dtype = getattr(torch, DTYPES[ctx.result.dtype].torch)
        return ctx.constant(torch.logspace(start, end, steps, base, dtype=torch_dtype), "range")
    powers = ctx.elementwise("POW", base, _between(ctx, start, end, steps, "FLOAT"))
    return ctx.cast(powers, ctx.result.dtype)


def _between(ctx: Context, start: Operand, end: Operand, steps: int, dtype: str) -> Tensor:
    """Even steps, as ``dtype`` has them: half counted from ``start``, half from ``end``."""
    first, last = (ctx.operand(value, dtype, 1) for value in (start, end))
    step = ctx.elementwise("DIV", ctx.elementwise("SUB", last, first), max(steps - 1, 1))
    places = (
        ctx.ramp((steps,), (1,), dtype=dtype),
        ctx.ramp((steps,), (-1,), steps - 1, dtype=dtype),
    )
    early, late = (ctx.elementwise("PROD", step, place) for place in places)
    is_early = ctx.constant(torch.arange(steps) < max(steps // 2, 1), "first half")
    return ctx.select(
        is_early, ctx.elementwise("SUM", first, early), ctx.elementwise("SUB", last, late)
    )


@converter(aten.eye.default, aten.eye.m)
def eye(ctx: Context, **_: Any) -> Tensor:
    """eye(SymInt n, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None) -> Tensor
    eye.m(SymInt n, SymInt m, *, ScalarType? dtype=None, Layout? layout=None,
    Device? device=None, bool? pin_memory=None) -> Tensor
    """
    distance = ctx.ramp(ctx.result.shape, (1, -1))
    is_diagonal = ctx.elementwise("EQUAL", distance, ctx.scalar(0, "INT64", 2))
    return ctx.cast(is_diagonal, ctx.result.dtype)
