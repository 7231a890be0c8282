# SPDX-License-Identifier: Apache-2.0
"""The logarithm of the gamma function and its first two derivatives.

Shapes: any, dynamic dims included.
Dtypes: float32, float16, bfloat16, all computed in float32; integers and bool as floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from trtpack_runtime.network import Tensor

from .context import Context
from .registry import converter
from .special import polynomial

aten = torch.ops.aten
_SHIFT = 6
"""From here on an asymptotic series of four terms has all digits of float32."""


@converter(aten.lgamma.default)
def lgamma(ctx: Context, self: Tensor) -> Tensor:
    """lgamma(Tensor self) -> Tensor

    Below 1/2 by reflection: ``log(pi) - log(|sin(pi x)|) - lgamma(1 - x)``.
    Source: C. Lanczos, A precision approximation of the gamma function, with six terms.
    """

    def compute(x: Tensor) -> Tensor:
        mirrored = ctx.elementwise("LESS", x, 0.5)
        right = _lanczos(ctx, ctx.select(mirrored, ctx.elementwise("SUB", 1.0, x), x))
        sine = ctx.unary("LOG", ctx.unary("ABS", _of_turn(ctx, "SIN", _turn(ctx, x))))
        height = ctx.elementwise("SUB", math.log(math.pi), sine)
        answer = ctx.select(mirrored, ctx.elementwise("SUB", height, right), right)
        endless = ctx.unary("ISINF", x)
        return ctx.select(endless, ctx.scalar(math.inf, "FLOAT", x.rank), answer)

    return ctx.in_float32(ctx.cast(self, ctx.result.dtype), compute)


@converter(aten.digamma.default)
def digamma(ctx: Context, self: Tensor) -> Tensor:
    """digamma(Tensor self) -> Tensor

    Below 0 by reflection: ``digamma(1 - x) - pi / tan(pi x)``, which whole numbers have not.
    """

    def compute(x: Tensor) -> Tensor:
        mirrored = ctx.elementwise("LESS", x, 0.0)
        right = _first_derivative(ctx, ctx.select(mirrored, ctx.elementwise("SUB", 1.0, x), x))
        turn = _turn(ctx, x)
        left = ctx.elementwise(
            "SUB", right, ctx.elementwise("DIV", math.pi, _of_turn(ctx, "TAN", turn))
        )
        pole = ctx.elementwise("EQUAL", turn, 0.0)
        left = ctx.select(pole, ctx.scalar(math.nan, "FLOAT", x.rank), left)
        return ctx.select(mirrored, left, right)

    return ctx.in_float32(ctx.cast(self, ctx.result.dtype), compute)


def _low(*, n: int, **_: object) -> str | None:
    if n < 2:
        return None
    return f"derivative {n} of digamma takes as many terms as a negative number is large"


@converter(aten.polygamma.default, when=_low)
def polygamma(ctx: Context, n: int, self: Tensor) -> Tensor:
    """polygamma(int n, Tensor self) -> Tensor

    digamma, or its derivative, below 1/2 by reflection: ``(pi / sin(pi x)) ** 2 - f(1 - x)``.
    """
    if n == 0:
        return digamma(ctx, self)

    def compute(x: Tensor) -> Tensor:
        mirrored = ctx.elementwise("LESS", x, 0.5)
        right = _second_derivative(ctx, ctx.select(mirrored, ctx.elementwise("SUB", 1.0, x), x))
        ratio = ctx.elementwise("DIV", math.pi, _of_turn(ctx, "SIN", _turn(ctx, x)))
        left = ctx.elementwise("SUB", ctx.elementwise("PROD", ratio, ratio), right)
        return ctx.select(mirrored, left, right)

    return ctx.in_float32(ctx.cast(self, ctx.result.dtype), compute)


def _turn(ctx: Context, x: Tensor) -> Tensor:
    """``pi x`` less whole half turns, so that sine and tangent keep their digits."""
    return ctx.elementwise("PROD", ctx.elementwise("SUB", x, ctx.unary("ROUND", x)), math.pi)


_NEAR = 0.05
_SERIES = {"SIN": (1 / 120, -1 / 6, 1.0), "TAN": (2 / 15, 1 / 3, 1.0)}
"""In the square of an angle, to be multiplied by it."""


def _of_turn(ctx: Context, op: str, turn: Tensor) -> Tensor:
    """Sine or tangent; a series near 0, where TensorRT's own have an absolute error of 1e-7."""
    square = ctx.elementwise("PROD", turn, turn)
    series = ctx.elementwise("PROD", turn, polynomial(ctx, square, _SERIES[op]))
    near = ctx.elementwise("LESS", ctx.unary("ABS", turn), _NEAR)
    return ctx.select(near, series, ctx.unary(op, turn))


_LANCZOS = (
    76.18009172947146,
    -86.50532032941677,
    24.01409824083091,
    -1.231739572450155,
    0.1208650973866179e-2,
    -0.5395239384953e-5,
)


def _lanczos(ctx: Context, x: Tensor) -> Tensor:
    """``(x + 1/2) (log(x + 5.5) - 1) - 5 + log(sqrt(2 pi) series / x)`` from 1/2 on."""
    series = ctx.elementwise("SUM", _sum(ctx, _LANCZOS, lambda k: _over(ctx, x, k + 1)), 1.0)
    scaled = ctx.elementwise("DIV", ctx.elementwise("PROD", series, math.sqrt(2 * math.pi)), x)
    slope = ctx.elementwise("SUB", ctx.unary("LOG", ctx.elementwise("SUM", x, 5.5)), 1.0)
    main = ctx.elementwise("PROD", ctx.elementwise("SUM", x, 0.5), slope)
    return ctx.elementwise("SUM", ctx.elementwise("SUB", main, 5.0), ctx.unary("LOG", scaled))


def _first_derivative(ctx: Context, x: Tensor) -> Tensor:
    """``log(y) - 1/2y - 1/12y**2 + 1/120y**4 - 1/252y**6`` at ``y = x + 6``, less ``1/(x + k)``."""
    y = ctx.elementwise("SUM", x, float(_SHIFT))
    inverse = ctx.unary("RECIP", y)
    square = ctx.elementwise("PROD", inverse, inverse)
    tail = ctx.elementwise("PROD", square, polynomial(ctx, square, (1 / 252, -1 / 120, 1 / 12)))
    tail = ctx.elementwise("SUM", tail, ctx.elementwise("PROD", inverse, 0.5))
    before = _sum(ctx, (1.0,) * _SHIFT, lambda k: _over(ctx, x, k))
    return ctx.elementwise("SUB", ctx.elementwise("SUB", ctx.unary("LOG", y), tail), before)


def _second_derivative(ctx: Context, x: Tensor) -> Tensor:
    """``1/y + 1/2y**2 + 1/6y**3 - 1/30y**5 + 1/42y**7`` at ``y = x + 6``, and ``1/(x + k)**2``."""
    inverse = ctx.unary("RECIP", ctx.elementwise("SUM", x, float(_SHIFT)))
    square = ctx.elementwise("PROD", inverse, inverse)
    tail = ctx.elementwise("PROD", inverse, polynomial(ctx, square, (1 / 42, -1 / 30, 1 / 6, 1.0)))
    tail = ctx.elementwise("SUM", tail, ctx.elementwise("PROD", square, 0.5))

    def squared(k: int) -> Tensor:
        one = _over(ctx, x, k)
        return ctx.elementwise("PROD", one, one)

    return ctx.elementwise("SUM", tail, _sum(ctx, (1.0,) * _SHIFT, squared))


def _over(ctx: Context, x: Tensor, k: int) -> Tensor:
    """``1 / (x + k)``."""
    return ctx.unary("RECIP", ctx.elementwise("SUM", x, float(k)) if k else x)


def _sum(ctx: Context, factors: tuple[float, ...], term: Callable[[int], Tensor]) -> Tensor:
    """``factors[k] * term(k)``, the smallest terms first."""
    total: Tensor | None = None
    for k in reversed(range(len(factors))):
        one = term(k) if factors[k] == 1 else ctx.elementwise("PROD", term(k), factors[k])
        total = one if total is None else ctx.elementwise("SUM", total, one)
    assert total is not None
    return total
