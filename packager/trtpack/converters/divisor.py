# SPDX-License-Identifier: Apache-2.0
"""The greatest common divisor and the least common multiple.

Euclid's algorithm as a loop of as many steps as two numbers of the type can ever take, which are
neighbours among Fibonacci's.
Shapes: any two that broadcast, dynamic dims included.
Dtypes: int32, int64, uint8; before TensorRT 10.0 int64 has 32 bits.
"""

from __future__ import annotations

import torch

from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import computed, needs_wider_signed_integers
from .region import Region, scan
from .registry import converter

aten = torch.ops.aten
_STEPS = {"UINT8": 13, "INT32": 46, "INT64": 92}


@converter(aten.gcd.default, when=needs_wider_signed_integers)
def gcd(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """gcd(Tensor self, Tensor other) -> Tensor"""
    return ctx.cast(_divisor(ctx, self, other), ctx.result.dtype)


@converter(aten.lcm.default, when=needs_wider_signed_integers)
def lcm(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """lcm(Tensor self, Tensor other) -> Tensor

    ``|self / gcd * other|``, and 0 beside a 0.
    """
    a, b = _sizes(ctx, self, other)
    divisor = ctx.elementwise("MAX", _divisor(ctx, self, other), 1)
    part = ctx.elementwise("FLOOR_DIV", a, divisor)
    return ctx.cast(ctx.elementwise("PROD", part, b), ctx.result.dtype)


def _divisor(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    def step(inner: Region, states: list[Tensor], _: list[Tensor]) -> list[Tensor]:
        a, b = states
        done = inner.ctx.elementwise("EQUAL", b, 0)
        divisor = inner.ctx.elementwise("MAX", b, 1)
        whole = inner.ctx.elementwise("FLOOR_DIV", a, divisor)
        left = inner.ctx.elementwise("SUB", a, inner.ctx.elementwise("PROD", whole, divisor))
        return [inner.ctx.select(done, a, b), inner.ctx.select(done, b, left)]

    start = [ctx.expand(x, ctx.result.shape) for x in _sizes(ctx, self, other)]
    steps = _STEPS[ctx.result.dtype]
    return scan(ctx, step, start, length=steps, axis=0)[0]


def _sizes(ctx: Context, *operands: Tensor) -> list[Tensor]:
    """Both without their signs, in the type that they are computed in."""
    dtype, rank = computed(ctx.result.dtype), ctx.result.rank
    given = [ctx.operand(x, dtype, rank) for x in operands]
    return [ctx.unary("ABS", x) for x in given]
