# SPDX-License-Identifier: Apache-2.0
"""Padding in every mode: one slice that starts before its input and ends behind it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context
from .registry import converter

aten = torch.ops.aten

_MODES = {"constant": "FILL", "reflect": "REFLECT", "replicate": "CLAMP"}


@converter(aten.constant_pad_nd.default)
def constant_pad_nd(ctx: Context, self: Tensor, pad: Sequence[Dim], value: float) -> Tensor:
    """constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor

    Shapes: pairs for the last dims first; a negative number cuts; sizes may be dynamic.
    Dtypes: all.
    Source: torch.nn.functional.pad.
    """
    if 0 in self.shape:
        return ctx.expand(ctx.scalar(value, self.dtype), ctx.result.shape)
    return _pad(ctx, self, pad, "FILL", value)


@converter(
    aten.reflection_pad1d.default, aten.reflection_pad2d.default, aten.reflection_pad3d.default
)
def reflection_pad(ctx: Context, self: Tensor, padding: Sequence[Dim]) -> Tensor:
    """reflection_pad2d(Tensor self, SymInt[4] padding) -> Tensor"""
    return _pad(ctx, self, padding, "REFLECT")


@converter(
    aten.replication_pad1d.default, aten.replication_pad2d.default, aten.replication_pad3d.default
)
def replication_pad(ctx: Context, self: Tensor, padding: Sequence[Dim]) -> Tensor:
    """replication_pad2d(Tensor self, SymInt[4] padding) -> Tensor"""
    return _pad(ctx, self, padding, "CLAMP")


@converter(aten._pad_circular.default)
def pad_circular(ctx: Context, self: Tensor, pad: Sequence[Dim]) -> Tensor:
    """_pad_circular(Tensor self, SymInt[] pad) -> Tensor"""
    return _wrapped(ctx, self, pad)


@converter(aten.pad.default)
def pad(ctx: Context, self: Tensor, pad: Sequence[Dim], mode: str, value: float | None) -> Tensor:
    """pad(Tensor self, SymInt[] pad, str mode="constant", float? value=None) -> Tensor"""
    if mode == "circular":
        return _wrapped(ctx, self, pad)
    return _pad(ctx, self, pad, _MODES[mode], value or 0)


def _wrapped(ctx: Context, x: Tensor, pad: Sequence[Dim]) -> Tensor:
    """What negative numbers cut goes before the rest is repeated."""
    cut = [min(n, 0) if isinstance(n, int) else 0 for n in pad]
    x = _pad(ctx, x, cut, "FILL")
    before = _before(x, [n - less for n, less in zip(pad, cut, strict=True)])
    if ctx.result.shape == x.shape and not any(before):
        return x
    start = [size - n if n != 0 else 0 for n, size in zip(before, x.shape, strict=True)]
    return ctx.slice(x, start, ctx.result.shape, mode="WRAP")


def _pad(ctx: Context, x: Tensor, pad: Sequence[Dim], mode: str, value: float = 0) -> Tensor:
    if all(n == 0 for n in pad):
        return x
    if 0 in x.shape:  # nothing of it is left to be padded
        return ctx.expand(ctx.scalar(value, x.dtype), ctx.result.shape)
    before, behind = _before(x, pad), _before(x, pad[1:])
    start: list[Dim] = [-n for n in before]
    sizes = [n + d + m for n, d, m in zip(before, x.shape, behind, strict=True)]
    if all(isinstance(n, int) and n <= 0 for n in pad):
        return ctx.slice(x, start, sizes)
    fill = ctx.scalar(value, x.dtype) if mode == "FILL" and value else None
    return ctx.slice(x, start, sizes, mode=mode, fill=fill)


def _before(x: Tensor, pad: Sequence[Dim]) -> list[Dim]:
    """Every second number, which are for the last dims first, in the order of the dims."""
    return [*pad[::2], *(0,) * (x.rank - len(pad[::2]))][::-1]
