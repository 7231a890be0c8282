# SPDX-License-Identifier: Apache-2.0
"""Logical and bitwise operators.

TensorRT's AND, OR, XOR and NOT take truth values only. Bits of integers are reached by arithmetic:
``~x`` is ``-1 - x``, shifts are products and quotients, AND multiplies bit by bit in a dim of its
own, which OR and XOR follow from.
Shapes: any that broadcast, dynamic dims included; integers need a dim to spare.
Dtypes: bool, uint8, int32, int64; before TensorRT 10.0 int64 has 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import Operand, computed, needs_wider_signed_integers
from .refusals import Refused
from .registry import converter

aten = torch.ops.aten
MAX_RANK = 8


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


@converter(
    aten.bitwise_and.Tensor,
    aten.bitwise_and.Scalar,
    aten.bitwise_and.Scalar_Tensor,
    when=needs_wider_signed_integers,
)
def bitwise_and(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """bitwise_and.Tensor(Tensor self, Tensor other) -> Tensor
    bitwise_and.Scalar(Tensor self, Scalar other) -> Tensor
    bitwise_and.Scalar_Tensor(Scalar self, Tensor other) -> Tensor
    """
    if ctx.result.dtype == "BOOL":
        return _logical(ctx, "AND", self, other)
    return ctx.cast(_shared_bits(ctx, self, other), ctx.result.dtype)


@converter(
    aten.bitwise_or.Tensor,
    aten.bitwise_or.Scalar,
    aten.bitwise_or.Scalar_Tensor,
    when=needs_wider_signed_integers,
)
def bitwise_or(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """bitwise_or.Tensor(Tensor self, Tensor other) -> Tensor
    bitwise_or.Scalar(Tensor self, Scalar other) -> Tensor
    bitwise_or.Scalar_Tensor(Scalar self, Tensor other) -> Tensor

    What only ``self`` has, and ``other``.
    """
    if ctx.result.dtype == "BOOL":
        return _logical(ctx, "OR", self, other)
    only = ctx.elementwise("SUB", _whole(ctx, self), _shared_bits(ctx, self, other))
    return ctx.cast(ctx.elementwise("SUM", only, _whole(ctx, other)), ctx.result.dtype)


@converter(
    aten.bitwise_xor.Tensor,
    aten.bitwise_xor.Scalar,
    aten.bitwise_xor.Scalar_Tensor,
    when=needs_wider_signed_integers,
)
def bitwise_xor(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """bitwise_xor.Tensor(Tensor self, Tensor other) -> Tensor
    bitwise_xor.Scalar(Tensor self, Scalar other) -> Tensor
    bitwise_xor.Scalar_Tensor(Scalar self, Tensor other) -> Tensor

    What only ``self`` has, and what only ``other`` has.
    """
    if ctx.result.dtype == "BOOL":
        return _logical(ctx, "XOR", self, other)
    shared = _shared_bits(ctx, self, other)
    only = [ctx.elementwise("SUB", _whole(ctx, x), shared) for x in (self, other)]
    return ctx.cast(ctx.elementwise("SUM", *only), ctx.result.dtype)


@converter(aten.bitwise_not.default, when=needs_wider_signed_integers)
def bitwise_not(ctx: Context, self: Tensor) -> Tensor:
    """bitwise_not(Tensor self) -> Tensor"""
    if self.dtype == "BOOL":
        return ctx.unary("NOT", self)
    return ctx.cast(ctx.elementwise("SUB", -1, _whole(ctx, self)), self.dtype)


@converter(
    aten.bitwise_left_shift.Tensor,
    aten.bitwise_left_shift.Tensor_Scalar,
    aten.bitwise_left_shift.Scalar_Tensor,
    aten.__lshift__.Scalar,
    aten.__lshift__.Tensor,
    when=needs_wider_signed_integers,
)
def left_shift(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """bitwise_left_shift.Tensor(Tensor self, Tensor other) -> Tensor
    bitwise_left_shift.Tensor_Scalar(Tensor self, Scalar other) -> Tensor
    bitwise_left_shift.Scalar_Tensor(Scalar self, Tensor other) -> Tensor
    __lshift__.Scalar(Tensor self, Scalar other) -> Tensor
    __lshift__.Tensor(Tensor self, Tensor other) -> Tensor

    Nothing is left where ``other`` is negative, or as many bits as there are.
    """
    x = _whole(ctx, self)
    width = _width(ctx, x)
    powers = torch.tensor([*_weights(width), 0], dtype=_torch_dtype(x))
    return ctx.cast(ctx.elementwise("PROD", x, _looked_up(ctx, powers, other)), ctx.result.dtype)


@converter(
    aten.bitwise_right_shift.Tensor,
    aten.bitwise_right_shift.Tensor_Scalar,
    aten.bitwise_right_shift.Scalar_Tensor,
    aten.__rshift__.Scalar,
    aten.__rshift__.Tensor,
    when=needs_wider_signed_integers,
)
def right_shift(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """bitwise_right_shift.Tensor(Tensor self, Tensor other) -> Tensor
    bitwise_right_shift.Tensor_Scalar(Tensor self, Scalar other) -> Tensor
    bitwise_right_shift.Scalar_Tensor(Scalar self, Tensor other) -> Tensor
    __rshift__.Scalar(Tensor self, Scalar other) -> Tensor
    __rshift__.Tensor(Tensor self, Tensor other) -> Tensor

    Rounds towards minus infinity, as the sign bit is kept; nothing else is where ``other`` is
    negative, or as many bits as there are.
    """
    x = _whole(ctx, self)
    first, second = _powers_in_two(_width(ctx, x), _torch_dtype(x))
    part = ctx.elementwise("FLOOR_DIV", x, _looked_up(ctx, first, other))
    if not isinstance(other, int) or other not in range(first.numel() - 1):
        part = ctx.elementwise("FLOOR_DIV", part, _looked_up(ctx, second, other))
    return ctx.cast(part, ctx.result.dtype)


def _logical(ctx: Context, op: str, self: Operand, other: Operand) -> Tensor:
    rank = ctx.result.rank
    sides = (bool(x) if isinstance(x, int | float) else x for x in (self, other))
    return ctx.elementwise(op, *(ctx.operand(x, "BOOL", rank) for x in sides))


def _whole(ctx: Context, x: Operand) -> Tensor:
    """An operand in the type that whole numbers of the result's type are computed in."""
    return ctx.operand(x, computed(ctx.result.dtype), ctx.result.rank)


def _shared_bits(ctx: Context, self: Operand, other: Operand) -> Tensor:
    """The bits that both have, as a number."""
    if isinstance(self, int):
        self, other = other, self
    x = _whole(ctx, self)
    places: Sequence[int] = range(_width(ctx, x))
    if isinstance(other, int):
        places = [place for place in places if other >> place & 1]
        both = _bits(ctx, x, places)
    else:
        both = ctx.elementwise(
            "PROD", _bits(ctx, x, places), _bits(ctx, _whole(ctx, other), places)
        )
    weights = torch.tensor(_weights(_width(ctx, x)), dtype=_torch_dtype(x))[list(places)]
    weighted = ctx.elementwise("PROD", both, ctx.constant(weights, "weights"))
    return ctx.reduce("SUM", weighted, -1, keep_dims=False)


def _bits(ctx: Context, x: Tensor, places: Sequence[int]) -> Tensor:
    """0 or 1 for each of these bits, along a further dim: ``floor(x / 2 ** place) mod 2``."""
    if x.rank == MAX_RANK:
        raise Refused(f"bits of integers are taken apart in a dim of their own, beyond {MAX_RANK}")
    shifted = ctx.reshape(x, (*x.shape, 1))
    for i, table in enumerate(_powers_in_two(_width(ctx, x), _torch_dtype(x))):
        divisor = ctx.constant(table[list(places)], f"divisor {i}")
        shifted = ctx.elementwise("FLOOR_DIV", shifted, divisor)
    even = ctx.elementwise("PROD", ctx.elementwise("FLOOR_DIV", shifted, 2), 2)
    return ctx.elementwise("SUB", shifted, even)


def _width(ctx: Context, x: Tensor) -> int:
    return 64 if x.dtype == "INT64" and ctx.has("10.0") else 32


def _weights(width: int) -> list[int]:
    """What each bit counts; the last is the sign."""
    return [*(1 << place for place in range(width - 1)), -1 << (width - 1)]


def _powers_in_two(width: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """``2 ** place`` as a product of two, as the last would be a negative number."""
    places = range(width)
    first = [1 << min(place, width - 2) for place in places]
    second = [1 << max(place - (width - 2), 0) for place in places]
    return torch.tensor(first, dtype=dtype), torch.tensor(second, dtype=dtype)


def _looked_up(ctx: Context, table: torch.Tensor, places: Operand) -> Tensor:
    """The element of a table at each place; the last one for places outside."""
    last = table.numel() - 1
    if isinstance(places, int):
        number = table[places if 0 <= places <= last else last].item()
        return _whole(ctx, int(number))
    at = _whole(ctx, places)
    outside = ctx.scalar(last, at.dtype, at.rank)
    at = ctx.select(ctx.elementwise("LESS", at, 0), outside, ctx.elementwise("MIN", at, last))
    return ctx.gather(ctx.constant(table, "powers"), at, 0)


def _torch_dtype(x: Tensor) -> torch.dtype:
    dtype = getattr(torch, DTYPES[x.dtype].torch)
    assert isinstance(dtype, torch.dtype)
    return dtype
