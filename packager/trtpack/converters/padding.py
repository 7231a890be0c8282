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

_MODES = {"constant": "FILL", "reflect": "REFLECT", "replicate": "CLAMP", "circular": "WRAP"}


@converter(aten.constant_pad_nd.default)
def constant_pad_nd(ctx: Context, self: Tensor, pad: Sequence[Dim], value: float) -> Tensor:
    """constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor

    Shapes: pairs for the last dims first; a negative number cuts; sizes may be dynamic.
    Dtypes: all.
    Source: torch.nn.functional.pad.
    """
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
    return _pad(ctx, self, pad, "WRAP")


@converter(aten.pad.default)
def pad(ctx: Context, self: Tensor, pad: Sequence[Dim], mode: str, value: float | None) -> Tensor:
    """pad(Tensor self, SymInt[] pad, str mode="constant", float? value=None) -> Tensor"""
    return _pad(ctx, self, pad, _MODES[mode], value or 0)


def _pad(ctx: Context, x: Tensor, pad: Sequence[Dim], mode: str, value: float = 0) -> Tensor:
    before = [*pad[::2], *(0,) * (x.rank - len(pad) // 2)][::-1]
    if all(n == 0 for n in pad):
        return x
    start: list[Dim] = [-n for n in before]
    if mode == "WRAP":
        start = [(n + size) % size if n != 0 else 0 for n, size in zip(start, x.shape, strict=True)]
    if all(isinstance(n, int) and n <= 0 for n in pad):
        return ctx.slice(x, start, ctx.result.shape)
    fill = ctx.scalar(value, x.dtype) if mode == "FILL" and value else None
    return ctx.slice(x, start, ctx.result.shape, mode=mode, fill=fill)
