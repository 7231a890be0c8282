# SPDX-License-Identifier: Apache-2.0
"""Sums, products, quotients and powers, with PyTorch's type promotion and rounding.

Shapes: any two that broadcast, dynamic dims included.
Dtypes: float32, float16, bfloat16, int32, int64, bool where PyTorch has it, uint8 in sums,
differences, products and quotients; mixed ones meet in the type of PyTorch's result.
A whole number divided by 0 is an error in PyTorch; TensorRT does not say what it answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .pointwise import trunc
from .promotion import Operand, computed, needs_wider_integers, needs_wider_signed_integers, wide
from .refusals import Refused
from .registry import converter

aten = torch.ops.aten


@converter(aten.add.Tensor, aten.add.Scalar, when=needs_wider_signed_integers)
def add(ctx: Context, self: Operand, other: Operand, alpha: float = 1) -> Tensor:
    """add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor
    add.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor

    Truth values add up to their OR; ``alpha`` False leaves ``self``.
    """
    if ctx.result.dtype == "BOOL" and not alpha and isinstance(other, Tensor):
        other = ctx.elementwise("XOR", other, other)
    if ctx.result.dtype == "BOOL":
        return _binary(ctx, "OR", self, other)
    return _binary(ctx, "SUM", self, _times(ctx, other, alpha))


@converter(aten.sub.Tensor, aten.sub.Scalar, when=needs_wider_signed_integers)
def sub(ctx: Context, self: Operand, other: Operand, alpha: float = 1) -> Tensor:
    """sub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor
    sub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor
    """
    return _binary(ctx, "SUB", self, _times(ctx, other, alpha))


@converter(aten.rsub.Tensor, aten.rsub.Scalar, when=needs_wider_signed_integers)
def rsub(ctx: Context, self: Operand, other: Operand, alpha: float = 1) -> Tensor:
    """rsub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor
    rsub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor

    ``other - alpha * self``.
    """
    return _binary(ctx, "SUB", other, _times(ctx, self, alpha))


@converter(aten.mul.Tensor, aten.mul.Scalar, when=needs_wider_signed_integers)
def mul(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """mul.Tensor(Tensor self, Tensor other) -> Tensor
    mul.Scalar(Tensor self, Scalar other) -> Tensor

    The product of truth values is their AND.
    """
    return _binary(ctx, "AND" if ctx.result.dtype == "BOOL" else "PROD", self, other)


@converter(aten.div.Tensor, aten.div.Scalar, aten.true_divide.Tensor, aten.true_divide.Scalar)
def div(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """div.Tensor(Tensor self, Tensor other) -> Tensor
    div.Scalar(Tensor self, Scalar other) -> Tensor
    true_divide.Tensor(Tensor self, Tensor other) -> Tensor
    true_divide.Scalar(Tensor self, Scalar other) -> Tensor

    Integers divide as floats.
    """
    return _binary(ctx, "DIV", self, other)


@converter(aten.div.Tensor_mode, aten.div.Scalar_mode, when=needs_wider_signed_integers)
def div_rounded(ctx: Context, self: Operand, other: Operand, rounding_mode: str | None) -> Tensor:
    """div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor
    div.Scalar_mode(Tensor self, Scalar other, *, str? rounding_mode) -> Tensor

    A float quotient is rounded to its type before it is rounded to a whole number.
    """
    round = {None: _quotient, "floor": _floored, "trunc": _truncated}[rounding_mode]
    dtype = wide(ctx.result.dtype)
    whole = round(ctx, _operand(ctx, self, dtype), _operand(ctx, other, dtype))
    return ctx.cast(whole, ctx.result.dtype)


@converter(aten.floor_divide.default, aten.floor_divide.Scalar, when=needs_wider_signed_integers)
def floor_divide(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """floor_divide(Tensor self, Tensor other) -> Tensor
    floor_divide.Scalar(Tensor self, Scalar other) -> Tensor
    """
    return div_rounded(ctx, self, other, "floor")


@converter(
    aten.remainder.Tensor,
    aten.remainder.Scalar,
    aten.remainder.Scalar_Tensor,
    when=needs_wider_signed_integers,
)
def remainder(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """remainder.Tensor(Tensor self, Tensor other) -> Tensor
    remainder.Scalar(Tensor self, Scalar other) -> Tensor
    remainder.Scalar_Tensor(Scalar self, Tensor other) -> Tensor

    ``self - floor(self / other) * other``: the sign of the divisor. Floats are exact to the last
    place of ``self``, integers always.
    """
    return _what_is_left(ctx, self, other, _floored)


@converter(aten.fmod.Tensor, aten.fmod.Scalar, when=needs_wider_signed_integers)
def fmod(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """fmod.Tensor(Tensor self, Tensor other) -> Tensor
    fmod.Scalar(Tensor self, Scalar other) -> Tensor

    ``self - trunc(self / other) * other``: the sign of the dividend.
    """
    return _what_is_left(ctx, self, other, _truncated)


_NO_WHOLE_POWERS = "TensorRT raises whole numbers to powers since 10.0"


def _whole_powers(**arguments: Any) -> str | None:
    """Refuses what ``needs_wider_integers`` does, and kPOW of whole numbers before 10.0."""
    reason = needs_wider_integers(**arguments)
    sides = (arguments["self"], arguments["exponent"])
    meets_float = any(isinstance(s, float) or getattr(s, "dtype", "") in FLOATS for s in sides)
    if reason or meets_float or arguments["target"].tensorrt_at_least("10.0"):
        return reason
    return _NO_WHOLE_POWERS


@converter(aten.pow.Tensor_Tensor, aten.pow.Scalar, when=_whole_powers)
def pow(ctx: Context, self: Operand, exponent: Operand) -> Tensor:
    """pow.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor
    pow.Scalar(Scalar self, Tensor exponent) -> Tensor

    Of ``1 ** nan`` and ``nan ** 0`` one is NaN on TensorRT 8.6, where PyTorch answers 1.
    """
    return _binary(ctx, "POW", self, exponent)


@converter(aten.pow.Tensor_Scalar, when=needs_wider_integers)
def pow_scalar(ctx: Context, self: Tensor, exponent: float) -> Tensor:
    """pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor

    Whole and half exponents become products and roots, which are exact for negative bases and
    which TensorRT fuses; the others are kPOW.
    """
    dtype = ctx.result.dtype
    if exponent == 0:
        return ctx.expand(ctx.scalar(1, dtype, self.rank), self.shape)
    x = ctx.cast(self, dtype if exponent in (1, 2, 3) else wide(dtype))
    if abs(exponent) == 0.5:
        power = ctx.unary("SQRT", x)
    elif exponent % 1 == 0 and abs(exponent) <= _LARGEST_PRODUCT:
        power = _product(ctx, x, int(abs(exponent)))
    elif x.dtype not in FLOATS and not ctx.has("10.0"):
        raise Refused(_NO_WHOLE_POWERS)
    else:
        return ctx.cast(ctx.elementwise("POW", x, exponent), dtype)
    return ctx.cast(ctx.unary("RECIP", power) if exponent < 0 else power, dtype)


@converter(aten.addcmul.default, when=needs_wider_integers)
def addcmul(
    ctx: Context, self: Tensor, tensor1: Tensor, tensor2: Tensor, value: float = 1
) -> Tensor:
    """addcmul(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor"""
    return _binary(ctx, "SUM", self, _times(ctx, _binary(ctx, "PROD", tensor1, tensor2), value))


@converter(aten.addcdiv.default)
def addcdiv(
    ctx: Context, self: Tensor, tensor1: Tensor, tensor2: Tensor, value: float = 1
) -> Tensor:
    """addcdiv(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor"""
    return _binary(ctx, "SUM", self, _times(ctx, _binary(ctx, "DIV", tensor1, tensor2), value))


@converter(aten.lerp.Scalar, aten.lerp.Tensor)
def lerp(ctx: Context, self: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """lerp.Scalar(Tensor self, Tensor end, Scalar weight) -> Tensor
    lerp.Tensor(Tensor self, Tensor end, Tensor weight) -> Tensor
    """
    return _binary(ctx, "SUM", self, _binary(ctx, "PROD", _binary(ctx, "SUB", end, self), weight))


_LARGEST_PRODUCT = 64


def _binary(ctx: Context, op: str, a: Operand, b: Operand) -> Tensor:
    """``op`` in the type of PyTorch's result."""
    dtype = computed(ctx.result.dtype)
    if op in ("PROD", "DIV") and not (_fits(a, dtype) and _fits(b, dtype)):
        dtype = wide(dtype)
    return ctx.cast(
        ctx.elementwise(op, _operand(ctx, a, dtype), _operand(ctx, b, dtype)), ctx.result.dtype
    )


def _operand(ctx: Context, value: Operand, dtype: str) -> Tensor:
    return ctx.operand(value, dtype, ctx.result.rank)


def _fits(value: Operand, dtype: str) -> bool:
    """Whether a number keeps its precision in ``dtype``; eager PyTorch holds it in float32."""
    if not isinstance(value, int | float) or value == 0 or DTYPES[dtype].kind != "float":
        return True
    limits = torch.finfo(getattr(torch, DTYPES[dtype].torch))
    return limits.smallest_normal <= abs(value) <= limits.max or abs(value) == float("inf")


def _times(ctx: Context, value: Operand, factor: float) -> Operand:
    if factor == 1:
        return value
    return value * factor if isinstance(value, int | float) else _binary(ctx, "PROD", value, factor)


def _quotient(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return ctx.elementwise("DIV", a, b)


def _floored(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return ctx.elementwise("FLOOR_DIV", a, b)


def _truncated(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return trunc(ctx, ctx.elementwise("DIV", a, b))


def _what_is_left(
    ctx: Context, self: Operand, other: Operand, whole: Callable[[Context, Tensor, Tensor], Tensor]
) -> Tensor:
    dtype = ctx.result.dtype
    a, b = (ctx.cast(_operand(ctx, value, dtype), wide(dtype)) for value in (self, other))
    left = ctx.elementwise("SUB", a, ctx.elementwise("PROD", whole(ctx, a, b), b))
    return ctx.cast(left, dtype)


def _product(ctx: Context, x: Tensor, exponent: int) -> Tensor:
    """``x ** exponent`` by repeated squaring."""
    if exponent == 1:
        return x
    half = _product(ctx, x, exponent // 2)
    square = ctx.elementwise("PROD", half, half)
    return ctx.elementwise("PROD", square, x) if exponent % 2 else square
