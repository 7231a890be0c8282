# SPDX-License-Identifier: Apache-2.0
"""Rotary position embeddings."""

from __future__ import annotations

from trtpack.rotary_embedding import ROTARY
from trtpack_runtime.network import Tensor

from .context import Context
from .refusals import unless_floats
from .registry import converter


@converter(ROTARY, when=unless_floats)
def rotary_embedding(
    ctx: Context, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool
) -> Tensor:
    """rotary_embedding(Tensor x, Tensor cos, Tensor sin, bool interleaved) -> Tensor

    What ``recognise_rotary`` finds. One layer from TensorRT 10.15 on, where cos and sin are the
    same for every head; else two products and a sum with ``x`` rolled by half a pair.

    Shapes: x (..., n), n even; cos and sin (..., n / 2); batch and lengths may be dynamic.
    Dtypes: float16, bfloat16, float32.
    Source: IRotaryEmbeddingLayer: x (batch, heads, length, n), cos and sin (batch, length, n / 2).
    """
    cos, sin = (ctx.unsqueeze_to(t, x.rank) for t in (cos, sin))
    order = _heads_second(x, cos, sin) if ctx.has("10.15") else None
    if order is None:
        return _by_products(ctx, x, cos, sin, interleaved)
    x = ctx.permute(x, order)
    batch, _, length, width = x.shape
    angles = (
        ctx.expand(
            ctx.reshape(t, tuple(t.shape[d] for d in order if d != order[1])),
            (batch, length, width // 2),
        )
        for t in (cos, sin)
    )
    operands = dict(zip(("input", "cos", "sin"), (x, *angles), strict=True))
    turned = ctx.add("rotary_embedding", operands, interleaved=interleaved)
    return ctx.permute(turned, order)


def _heads_second(x: Tensor, *angles: Tensor) -> tuple[int, ...] | None:
    """The order of dims that puts the heads second, their own inverse; None where there is none.

    Heads are the dim along which no angle differs.
    """
    if x.rank != 4:
        return None
    for axis, order in ((1, (0, 1, 2, 3)), (2, (0, 2, 1, 3))):
        if all(angle.shape[axis] == 1 for angle in angles):
            return order
    return None


def _by_products(ctx: Context, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """``x * cos`` plus ``x`` with its pairs swapped times ``sin`` of both signs."""
    last = x.rank
    if interleaved:
        *lead, width = x.shape
        x = ctx.reshape(x, (*lead, width // 2, 2))
        cos, sin = (ctx.reshape(t, (*t.shape, 1)) for t in (cos, sin))
    else:
        last -= 1
        cos = ctx.concatenate([cos, cos], last)
    half = x.shape[-1] // 2
    swapped = ctx.slice(x, [*(0 for _ in range(last)), half], x.shape, mode="WRAP")
    signed = ctx.concatenate([ctx.unary("NEG", sin), sin], last)
    turned = ctx.elementwise("PROD", swapped, signed)
    out = ctx.elementwise("SUM", ctx.elementwise("PROD", x, cos), turned)
    return ctx.reshape(out, ctx.result.shape)
