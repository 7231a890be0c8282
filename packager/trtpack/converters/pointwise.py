# SPDX-License-Identifier: Apache-2.0
"""Functions of one number: roots, exponentials, angles, rounding, tests of floats.

Shapes: any, dynamic dims included.
Dtypes: float32, float16, bfloat16; integers and bool where PyTorch takes them, as floats unless the
function keeps integers.
"""

from __future__ import annotations

import math

import torch

from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import needs_wider_integers
from .registry import converter

aten = torch.ops.aten


@converter(aten.exp.default)
def exp(ctx: Context, self: Tensor) -> Tensor:
    """exp(Tensor self) -> Tensor"""
    return _float_unary(ctx, "EXP", self)


@converter(aten.exp2.default)
def exp2(ctx: Context, self: Tensor) -> Tensor:
    """exp2(Tensor self) -> Tensor"""
    return ctx.elementwise("POW", 2, _as_result(ctx, self))


@converter(aten.expm1.default)
def expm1(ctx: Context, self: Tensor) -> Tensor:
    """expm1(Tensor self) -> Tensor

    ``tanh(x / 2) * (exp(x) + 1)``, which is exact near 0 and overflows where the answer does.
    """

    def compute(x: Tensor) -> Tensor:
        tanh = ctx.activation("TANH", ctx.elementwise("PROD", x, 0.5))
        return ctx.elementwise("PROD", tanh, ctx.elementwise("SUM", ctx.unary("EXP", x), 1.0))

    return ctx.in_float32(_as_result(ctx, self), compute)


@converter(aten.log.default)
def log(ctx: Context, self: Tensor) -> Tensor:
    """log(Tensor self) -> Tensor"""
    return _float_unary(ctx, "LOG", self)


@converter(aten.log1p.default)
def log1p(ctx: Context, self: Tensor) -> Tensor:
    """log1p(Tensor self) -> Tensor

    ``asinh(x * (1 + 1 / (1 + x)) / 2)``, which is exact near 0 where ``log(1 + x)`` is not; NaN
    below -1.
    """

    def compute(x: Tensor) -> Tensor:
        inverse = ctx.unary("RECIP", ctx.elementwise("SUM", x, 1.0))
        half = ctx.elementwise("PROD", ctx.elementwise("SUM", inverse, 1.0), 0.5)
        answer = ctx.unary("ASINH", ctx.elementwise("PROD", x, half))
        return ctx.select(ctx.elementwise("LESS", x, -1.0), ctx.scalar(math.nan, "FLOAT"), answer)

    return ctx.in_float32(_as_result(ctx, self), compute)


@converter(aten.log2.default)
def log2(ctx: Context, self: Tensor) -> Tensor:
    """log2(Tensor self) -> Tensor"""
    return ctx.elementwise("PROD", _float_unary(ctx, "LOG", self), 1 / math.log(2))


@converter(aten.log10.default)
def log10(ctx: Context, self: Tensor) -> Tensor:
    """log10(Tensor self) -> Tensor"""
    return ctx.elementwise("PROD", _float_unary(ctx, "LOG", self), 1 / math.log(10))


@converter(aten.sqrt.default)
def sqrt(ctx: Context, self: Tensor) -> Tensor:
    """sqrt(Tensor self) -> Tensor"""
    return _float_unary(ctx, "SQRT", self)


@converter(aten.rsqrt.default)
def rsqrt(ctx: Context, self: Tensor) -> Tensor:
    """rsqrt(Tensor self) -> Tensor"""
    return ctx.unary("RECIP", _float_unary(ctx, "SQRT", self))


@converter(aten.reciprocal.default)
def reciprocal(ctx: Context, self: Tensor) -> Tensor:
    """reciprocal(Tensor self) -> Tensor"""
    return _float_unary(ctx, "RECIP", self)


@converter(aten.square.default, when=needs_wider_integers)
def square(ctx: Context, self: Tensor) -> Tensor:
    """square(Tensor self) -> Tensor"""
    x = _as_result(ctx, self)
    return ctx.elementwise("PROD", x, x)


@converter(aten.sin.default)
def sin(ctx: Context, self: Tensor) -> Tensor:
    """sin(Tensor self) -> Tensor"""
    return _float_unary(ctx, "SIN", self)


@converter(aten.cos.default)
def cos(ctx: Context, self: Tensor) -> Tensor:
    """cos(Tensor self) -> Tensor"""
    return _float_unary(ctx, "COS", self)


@converter(aten.tan.default)
def tan(ctx: Context, self: Tensor) -> Tensor:
    """tan(Tensor self) -> Tensor"""
    return _float_unary(ctx, "TAN", self)


@converter(aten.asin.default)
def asin(ctx: Context, self: Tensor) -> Tensor:
    """asin(Tensor self) -> Tensor"""
    return _float_unary(ctx, "ASIN", self)


@converter(aten.acos.default)
def acos(ctx: Context, self: Tensor) -> Tensor:
    """acos(Tensor self) -> Tensor"""
    return _float_unary(ctx, "ACOS", self)


@converter(aten.atan.default)
def atan(ctx: Context, self: Tensor) -> Tensor:
    """atan(Tensor self) -> Tensor"""
    return _float_unary(ctx, "ATAN", self)


@converter(aten.sinh.default)
def sinh(ctx: Context, self: Tensor) -> Tensor:
    """sinh(Tensor self) -> Tensor"""
    return _float_unary(ctx, "SINH", self)


@converter(aten.cosh.default)
def cosh(ctx: Context, self: Tensor) -> Tensor:
    """cosh(Tensor self) -> Tensor"""
    return _float_unary(ctx, "COSH", self)


@converter(aten.asinh.default)
def asinh(ctx: Context, self: Tensor) -> Tensor:
    """asinh(Tensor self) -> Tensor"""
    return _float_unary(ctx, "ASINH", self)


@converter(aten.acosh.default)
def acosh(ctx: Context, self: Tensor) -> Tensor:
    """acosh(Tensor self) -> Tensor"""
    return _float_unary(ctx, "ACOSH", self)


@converter(aten.atanh.default)
def atanh(ctx: Context, self: Tensor) -> Tensor:
    """atanh(Tensor self) -> Tensor"""
    return _float_unary(ctx, "ATANH", self)


@converter(aten.erf.default)
def erf(ctx: Context, self: Tensor) -> Tensor:
    """erf(Tensor self) -> Tensor"""
    return _float_unary(ctx, "ERF", self)


@converter(aten.erfc.default)
def erfc(ctx: Context, self: Tensor) -> Tensor:
    """erfc(Tensor self) -> Tensor"""
    return ctx.in_float32(
        _as_result(ctx, self), lambda x: ctx.elementwise("SUB", 1.0, ctx.unary("ERF", x))
    )


@converter(aten.hypot.default)
def hypot(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """hypot(Tensor self, Tensor other) -> Tensor"""
    squares = []
    for side in (self, other):
        x = ctx.cast(side, "FLOAT")
        squares.append(ctx.elementwise("PROD", x, x))
    return ctx.cast(ctx.unary("SQRT", ctx.elementwise("SUM", *squares)), ctx.result.dtype)


@converter(aten.abs.default, when=needs_wider_integers)
def abs(ctx: Context, self: Tensor) -> Tensor:
    """abs(Tensor self) -> Tensor"""
    return ctx.unary("ABS", self)


@converter(aten.neg.default, when=needs_wider_integers)
def neg(ctx: Context, self: Tensor) -> Tensor:
    """neg(Tensor self) -> Tensor"""
    return ctx.unary("NEG", self)


@converter(aten.sign.default, when=needs_wider_integers)
def sign(ctx: Context, self: Tensor) -> Tensor:
    """sign(Tensor self) -> Tensor"""
    return self if self.dtype == "BOOL" else ctx.unary("SIGN", self)


@converter(aten.ceil.default)
def ceil(ctx: Context, self: Tensor) -> Tensor:
    """ceil(Tensor self) -> Tensor"""
    return _rounded(ctx, "CEIL", self)


@converter(aten.floor.default)
def floor(ctx: Context, self: Tensor) -> Tensor:
    """floor(Tensor self) -> Tensor"""
    return _rounded(ctx, "FLOOR", self)


@converter(aten.round.default)
def round(ctx: Context, self: Tensor) -> Tensor:
    """round(Tensor self) -> Tensor

    Source: NvInfer.h, kROUND: to the nearest, halves to the nearest even number.
    """
    return _rounded(ctx, "ROUND", self)


@converter(aten.round.decimals)
def round_decimals(ctx: Context, self: Tensor, decimals: int) -> Tensor:
    """round.decimals(Tensor self, *, int decimals) -> Tensor"""
    there, back = ("PROD", "DIV") if decimals > 0 else ("DIV", "PROD")
    scale = 10.0 ** max(decimals, -decimals)

    def compute(x: Tensor) -> Tensor:
        whole = ctx.unary("ROUND", ctx.elementwise(there, x, scale))
        return ctx.elementwise(back, whole, scale)

    return ctx.in_float32(self, compute)


@converter(aten.trunc.default)
def trunc(ctx: Context, self: Tensor) -> Tensor:
    """trunc(Tensor self) -> Tensor"""
    if self.dtype not in FLOATS:
        return self
    whole = ctx.unary("FLOOR", ctx.unary("ABS", self))
    return ctx.elementwise("PROD", ctx.unary("SIGN", self), whole)


@converter(aten.frac.default)
def frac(ctx: Context, self: Tensor) -> Tensor:
    """frac(Tensor self) -> Tensor"""
    return ctx.elementwise("SUB", self, trunc(ctx, self))


@converter(aten.isinf.default)
def isinf(ctx: Context, self: Tensor) -> Tensor:
    """isinf(Tensor self) -> Tensor"""
    if self.dtype not in FLOATS:
        return ctx.expand(ctx.scalar(False, "BOOL", self.rank), self.shape)
    return ctx.unary("ISINF", self)


@converter(aten.isnan.default)
def isnan(ctx: Context, self: Tensor) -> Tensor:
    """isnan(Tensor self) -> Tensor

    What is unequal to itself, before TensorRT 10.1, which has kISNAN.
    """
    if self.dtype not in FLOATS:
        return ctx.expand(ctx.scalar(False, "BOOL", self.rank), self.shape)
    if ctx.has("10.1"):
        return ctx.unary("ISNAN", self)
    return ctx.unary("NOT", ctx.elementwise("EQUAL", self, self))


@converter(aten.isfinite.default)
def isfinite(ctx: Context, self: Tensor) -> Tensor:
    """isfinite(Tensor self) -> Tensor"""
    return ctx.unary("NOT", ctx.elementwise("OR", isinf(ctx, self), isnan(ctx, self)))


def _as_result(ctx: Context, x: Tensor) -> Tensor:
    return ctx.cast(x, ctx.result.dtype)


def _float_unary(ctx: Context, op: str, x: Tensor) -> Tensor:
    return ctx.unary(op, _as_result(ctx, x))


def _rounded(ctx: Context, op: str, x: Tensor) -> Tensor:
    return ctx.unary(op, x) if x.dtype in FLOATS else x
