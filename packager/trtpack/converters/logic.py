# SPDX-License-Identifier: Apache-2.0
"""Logical and bitwise operators.

TensorRT's AND, OR, XOR and NOT take truth values only. Bits of integers are reached where
arithmetic says the same: ``~x`` is ``-1 - x``, shifts are products and quotients.
Shapes: any that broadcast, dynamic dims included.
"""

from __future__ import annotations

from typing import Any

import torch

from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import Operand, needs_wider_integers
from .registry import converter

aten = torch.ops.aten


def _not_truth_values(*, self: Tensor, **_: Any) -> str | None:
    if self.dtype == "BOOL":
        return None
    return "TensorRT has AND, OR and XOR of truth values, not of the bits of integers"


@converter(aten.logical_and.default)
def logical_and(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """logical_and(Tensor self, Tensor other) -> Tensor"""
    return _logical(ctx, "AND", self, other)


@converter(aten.logical_or.default)
def logical_or(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """logical_or(Tensor self, Tensor other) -> Tensor"""
    return _logical(ctx, "OR", self, other)


@converter(aten.logical_xor.default)
def logical_xor(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """logical_xor(Tensor self, Tensor other) -> Tensor"""
    return _logical(ctx, "XOR", self, other)


@converter(aten.logical_not.default)
def logical_not(ctx: Context, self: Tensor) -> Tensor:
    """logical_not(Tensor self) -> Tensor"""
    return ctx.unary("NOT", ctx.cast(self, "BOOL"))


@converter(aten.bitwise_and.Tensor, aten.bitwise_and.Scalar, when=_not_truth_values)
def bitwise_and(ctx: Context, self: Tensor, other: Operand) -> Tensor:
    """bitwise_and.Tensor(Tensor self, Tensor other) -> Tensor
    bitwise_and.Scalar(Tensor self, Scalar other) -> Tensor
    """
    return _logical(ctx, "AND", self, other)


@converter(aten.bitwise_or.Tensor, aten.bitwise_or.Scalar, when=_not_truth_values)
def bitwise_or(ctx: Context, self: Tensor, other: Operand) -> Tensor:
    """bitwise_or.Tensor(Tensor self, Tensor other) -> Tensor
    bitwise_or.Scalar(Tensor self, Scalar other) -> Tensor
    """
    return _logical(ctx, "OR", self, other)


@converter(aten.bitwise_xor.Tensor, aten.bitwise_xor.Scalar, when=_not_truth_values)
def bitwise_xor(ctx: Context, self: Tensor, other: Operand) -> Tensor:
    """bitwise_xor.Tensor(Tensor self, Tensor other) -> Tensor
    bitwise_xor.Scalar(Tensor self, Scalar other) -> Tensor
    """
    return _logical(ctx, "XOR", self, other)


@converter(aten.bitwise_not.default, when=needs_wider_integers)
def bitwise_not(ctx: Context, self: Tensor) -> Tensor:
    """bitwise_not(Tensor self) -> Tensor"""
    if self.dtype == "BOOL":
        return ctx.unary("NOT", self)
    return ctx.elementwise("SUB", -1, self)


@converter(
    aten.bitwise_left_shift.Tensor,
    aten.bitwise_left_shift.Tensor_Scalar,
    aten.__lshift__.Scalar,
    when=needs_wider_integers,
)
def left_shift(ctx: Context, self: Tensor, other: Operand) -> Tensor:
    """bitwise_left_shift.Tensor(Tensor self, Tensor other) -> Tensor
    bitwise_left_shift.Tensor_Scalar(Tensor self, Scalar other) -> Tensor
    __lshift__.Scalar(Tensor self, Scalar other) -> Tensor
    """
    return _shifted(ctx, "PROD", self, other)


@converter(
    aten.bitwise_right_shift.Tensor,
    aten.bitwise_right_shift.Tensor_Scalar,
    aten.__rshift__.Scalar,
    when=needs_wider_integers,
)
def right_shift(ctx: Context, self: Tensor, other: Operand) -> Tensor:
    """bitwise_right_shift.Tensor(Tensor self, Tensor other) -> Tensor
    bitwise_right_shift.Tensor_Scalar(Tensor self, Scalar other) -> Tensor
    __rshift__.Scalar(Tensor self, Scalar other) -> Tensor

    Rounds towards minus infinity, as the sign bit is kept.
    """
    return _shifted(ctx, "FLOOR_DIV", self, other)


def _logical(ctx: Context, op: str, self: Tensor, other: Operand) -> Tensor:
    rank = ctx.result.rank
    truth = bool(other) if isinstance(other, int | float) else other
    return ctx.elementwise(op, ctx.operand(self, "BOOL", rank), ctx.operand(truth, "BOOL", rank))


def _shifted(ctx: Context, op: str, self: Tensor, other: Operand) -> Tensor:
    dtype, rank = ctx.result.dtype, ctx.result.rank
    if isinstance(other, int):
        factor = ctx.scalar(1 << other, dtype, rank)
    else:
        factor = ctx.elementwise("POW", 2, ctx.operand(other, dtype, rank))
    return ctx.elementwise(op, ctx.operand(self, dtype, rank), factor)
