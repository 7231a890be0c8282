# SPDX-License-Identifier: Apache-2.0
"""Functions that TensorRT has no layer for: signs of zeros, guarded logarithms, inverse erf.

Shapes: any that broadcast, dynamic dims included.
Dtypes: float32, float16, bfloat16; integers and bool where PyTorch takes them.
"""

from __future__ import annotations

import math

import torch

from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .extrema import maximum, minimum
from .pointwise import isnan
from .promotion import Operand, computed, needs_wider_signed_integers
from .registry import converter

aten = torch.ops.aten


@converter(aten.signbit.default, when=needs_wider_signed_integers)
def signbit(ctx: Context, self: Tensor) -> Tensor:
    """signbit(Tensor self) -> Tensor

    True for -0.0 too, whose reciprocal is -inf. The sign of a NaN is not told.
    """
    if self.dtype == "BOOL":
        return ctx.expand(ctx.scalar(False, "BOOL", self.rank), self.shape)
    below = ctx.elementwise("LESS", ctx.cast(self, computed(self.dtype)), 0)
    if self.dtype not in FLOATS:
        return below
    return ctx.elementwise("OR", below, ctx.elementwise("LESS", ctx.unary("RECIP", self), 0.0))


@converter(aten.copysign.Tensor, aten.copysign.Scalar)
def copysign(ctx: Context, self: Tensor, other: Tensor | float) -> Tensor:
    """copysign.Tensor(Tensor self, Tensor other) -> Tensor
    copysign.Scalar(Tensor self, Scalar other) -> Tensor
    """
    dtype, rank = ctx.result.dtype, ctx.result.rank
    size = ctx.unary("ABS", ctx.operand(self, dtype, rank))
    if isinstance(other, Tensor):
        other = ctx.operand(other, computed(other.dtype), rank)
        return ctx.select(signbit(ctx, other), ctx.unary("NEG", size), size)
    return ctx.unary("NEG", size) if math.copysign(1, other) < 0 else size


@converter(aten.atan2.default)
def atan2(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """atan2(Tensor self, Tensor other) -> Tensor

    ``atan(|y| / |x|)``, mirrored where the sign of ``x`` or ``y`` is negative. Both sizes end at
    the largest number, so that two infinities meet at an eighth turn, ``|x|`` also at the smallest
    that no release rounds to 0.
    """
    largest, rank = torch.finfo(torch.float32).max, ctx.result.rank
    y, x = ctx.operand(self, "FLOAT", rank), ctx.operand(other, "FLOAT", rank)
    height, width = (
        ctx.activation("CLIP", ctx.unary("ABS", side), alpha=least, beta=largest)
        for side, least in ((y, 0.0), (x, 2e-38))
    )
    angle = ctx.unary("ATAN", ctx.elementwise("DIV", height, width))
    angle = ctx.select(signbit(ctx, x), ctx.elementwise("SUB", math.pi, angle), angle)
    signed = ctx.select(signbit(ctx, y), ctx.unary("NEG", angle), angle)
    return ctx.cast(signed, ctx.result.dtype)


@converter(aten.angle.default)
def angle(ctx: Context, self: Tensor) -> Tensor:
    """angle(Tensor self) -> Tensor

    Of a real number: pi where it is negative, 0 elsewhere; NaN keeps NaN.
    """
    x = ctx.cast(self, ctx.result.dtype)
    pi, zero = (ctx.scalar(n, x.dtype, x.rank) for n in (math.pi, 0.0))
    turn = ctx.select(ctx.elementwise("LESS", x, 0.0), pi, zero)
    return ctx.select(isnan(ctx, x), x, turn)


@converter(aten.nan_to_num.default)
def nan_to_num(
    ctx: Context,
    self: Tensor,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:
    """nan_to_num(Tensor self, float? nan=None, float? posinf=None, float? neginf=None) -> Tensor

    Infinities become the type's largest and smallest numbers, by clipping, unless others are asked
    for.
    """
    if self.dtype not in FLOATS:
        return self
    last = torch.finfo(getattr(torch, DTYPES[self.dtype].torch)).max
    x = ctx.select(isnan(ctx, self), ctx.scalar(nan or 0.0, self.dtype, self.rank), self)
    if posinf is None and neginf is None:
        return ctx.activation("CLIP", x, alpha=-last, beta=last)
    is_infinite = ctx.unary("ISINF", self)
    for side, sign, number in (("GREATER", 1.0, posinf), ("LESS", -1.0, neginf)):
        finite = ctx.scalar(sign * last if number is None else number, self.dtype, self.rank)
        ends = ctx.elementwise("AND", is_infinite, ctx.elementwise(side, self, 0.0))
        x = ctx.select(ends, finite, x)
    return x


@converter(aten.sinc.default)
def sinc(ctx: Context, self: Tensor) -> Tensor:
    """sinc(Tensor self) -> Tensor

    ``sin(pi * x) / (pi * x)``, and 1 at 0.
    """

    def compute(x: Tensor) -> Tensor:
        angle = ctx.elementwise("PROD", x, math.pi)
        ratio = ctx.elementwise("DIV", ctx.unary("SIN", angle), angle)
        return ctx.select(ctx.elementwise("EQUAL", x, 0.0), ctx.scalar(1.0, "FLOAT"), ratio)

    return ctx.in_float32(ctx.cast(self, ctx.result.dtype), compute)


@converter(
    aten.xlogy.Tensor,
    aten.xlogy.Scalar_Self,
    aten.xlogy.Scalar_Other,
)
def xlogy(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """xlogy.Tensor(Tensor self, Tensor other) -> Tensor
    xlogy.Scalar_Self(Scalar self, Tensor other) -> Tensor
    xlogy.Scalar_Other(Tensor self, Scalar other) -> Tensor

    ``self * log(other)``, and 0 where ``self`` is 0 unless ``other`` is NaN.
    """
    dtype, rank = ctx.result.dtype, ctx.result.rank
    x, y = ctx.operand(self, dtype, rank), ctx.operand(other, dtype, rank)
    product = ctx.elementwise("PROD", x, ctx.unary("LOG", y))
    is_number = ctx.unary("NOT", isnan(ctx, y))
    vanishes = ctx.elementwise("AND", ctx.elementwise("EQUAL", x, 0.0), is_number)
    return ctx.select(vanishes, ctx.scalar(0.0, dtype, rank), product)


@converter(aten.logaddexp.default)
def logaddexp(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """logaddexp(Tensor self, Tensor other) -> Tensor"""
    return _log_of_sum(ctx, self, other, 1.0)


@converter(aten.logaddexp2.default)
def logaddexp2(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """logaddexp2(Tensor self, Tensor other) -> Tensor"""
    return _log_of_sum(ctx, self, other, math.log(2))


@converter(aten.ldexp.Tensor)
def ldexp(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """ldexp.Tensor(Tensor self, Tensor other) -> Tensor

    ``self * 2 ** other``, in float32.
    """
    dtype, rank = ctx.result.dtype, ctx.result.rank
    power = ctx.elementwise("POW", 2.0, ctx.operand(other, "FLOAT", rank))
    return ctx.cast(ctx.elementwise("PROD", ctx.operand(self, "FLOAT", rank), power), dtype)


@converter(aten.fmax.default, when=needs_wider_signed_integers)
def fmax(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """fmax(Tensor self, Tensor other) -> Tensor"""
    return _number_first(ctx, "MAX", self, other)


@converter(aten.fmin.default, when=needs_wider_signed_integers)
def fmin(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """fmin(Tensor self, Tensor other) -> Tensor"""
    return _number_first(ctx, "MIN", self, other)


@converter(aten.erfinv.default)
def erfinv(ctx: Context, self: Tensor) -> Tensor:
    """erfinv(Tensor self) -> Tensor

    One of two polynomials in ``-log(1 - x * x)``, times ``x``; infinite at -1 and 1.
    Source: M. Giles, Approximating the erfinv function, single precision: relative error 4e-7.
    """

    def compute(x: Tensor) -> Tensor:
        near, far = (ctx.elementwise(op, 1.0, x) for op in ("SUB", "SUM"))
        w = ctx.unary("NEG", ctx.unary("LOG", ctx.elementwise("PROD", near, far)))
        centre = polynomial(ctx, ctx.elementwise("SUB", w, 2.5), _ERFINV_CENTRE)
        tail = polynomial(ctx, ctx.elementwise("SUB", ctx.unary("SQRT", w), 3.0), _ERFINV_TAIL)
        factor = ctx.select(ctx.elementwise("LESS", w, 5.0), centre, tail)
        inner = ctx.elementwise("PROD", factor, x)
        ends = ctx.elementwise("EQUAL", ctx.unary("ABS", x), 1.0)
        return ctx.select(ends, ctx.elementwise("PROD", x, math.inf), inner)

    return ctx.in_float32(ctx.cast(self, ctx.result.dtype), compute)


# fmt: off
_ERFINV_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)
_ERFINV_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)
# fmt: on


def polynomial(ctx: Context, x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """A polynomial by Horner's rule, the highest power first."""
    first, second, *rest = coefficients
    total = ctx.elementwise("SUM", ctx.elementwise("PROD", x, first), second)
    for coefficient in rest:
        total = ctx.elementwise("SUM", ctx.elementwise("PROD", total, x), coefficient)
    return total


def _log_of_sum(ctx: Context, self: Tensor, other: Tensor, scale: float) -> Tensor:
    """``log(exp(scale * a) + exp(scale * b)) / scale`` = max + softplus(-|a - b|), in float32."""
    rank = ctx.result.rank
    a, b = ctx.operand(self, "FLOAT", rank), ctx.operand(other, "FLOAT", rank)
    apart = ctx.unary("NEG", ctx.unary("ABS", ctx.elementwise("SUB", a, b)))
    equal = ctx.elementwise("EQUAL", a, b)  # two equal infinities are no NaN apart
    apart = ctx.select(equal, ctx.scalar(0.0, "FLOAT", rank), apart)
    more = ctx.activation("SOFTPLUS", apart, alpha=1 / scale, beta=scale)
    return ctx.cast(ctx.elementwise("SUM", ctx.elementwise("MAX", a, b), more), ctx.result.dtype)


def _number_first(ctx: Context, op: str, self: Tensor, other: Tensor) -> Tensor:
    """The larger or smaller; a number beside a NaN."""
    dtype, rank = ctx.result.dtype, ctx.result.rank
    if dtype not in FLOATS:
        return (maximum if op == "MAX" else minimum)(ctx, self, other)
    a, b = ctx.operand(self, dtype, rank), ctx.operand(other, dtype, rank)
    answer = ctx.elementwise(op, a, b)
    return ctx.select(isnan(ctx, a), b, ctx.select(isnan(ctx, b), a, answer))
