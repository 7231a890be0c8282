# SPDX-License-Identifier: Apache-2.0
"""Scaled dot-product attention."""

from __future__ import annotations

import math

import torch

from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.network import Tensor

from .context import Context
from .refusals import unless_floats
from .registry import converter

aten = torch.ops.aten

_MASKED = {"FLOAT": -1e30, "HALF": -3e4, "BF16": -1e30}
"""What is added to a masked score: finite, so that a query without any key is no NaN."""


def _deterministic(
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float,
    dropout_mask: Tensor | None = None,
    **_: object,
) -> str | None:
    if dropout_p or dropout_mask is not None:
        return f"TensorRT has no dropout, got {dropout_p or 'a mask of it'}"
    return unless_floats(query=query, key=key, value=value)


@converter(aten.scaled_dot_product_attention.default, when=_deterministic)
def scaled_dot_product_attention(
    ctx: Context,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    """scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor?
    attn_mask=None, float dropout_p=0.0, bool is_causal=False, *, float? scale=None, bool
    enable_gqa=False) -> Tensor

    One layer from TensorRT 10.14 on, two products and a softmax before. TensorRT's layer does not
    scale; it may be taken apart where it has no kernel for a type or a head size. As in PyTorch, a
    query that a boolean mask hides from every key answers zeros.

    Shapes: (..., heads, length, size); all but the heads may be dynamic; masks broadcast.
    Dtypes: float16, bfloat16, float32; masks boolean (True takes part) or added.
    Source: torch.nn.functional.scaled_dot_product_attention; IAttention.
    """
    query = _scaled(ctx, query, scale)
    square = query.shape[-2] == key.shape[-2]
    grouped = enable_gqa and query.shape[-3] != key.shape[-3]
    fused = (
        ctx.has("10.14")
        and query.rank <= 4
        and key.shape == value.shape
        and (query.shape[:-2] == key.shape[:-2] or (grouped and isinstance(query.shape[-3], int)))
        and query.shape[:-3] == key.shape[:-3]
    )
    seen = None
    if attn_mask is not None and attn_mask.dtype == "BOOL":
        seen = _seen(ctx, attn_mask, query.dtype)
    if seen is not None and _is_of_values(seen, value):
        value, seen = ctx.elementwise("PROD", value, seen), None  # nothing parts the products then
    if is_causal and not (fused and square):
        attn_mask = _lower_triangle(ctx, query, key)  # the first key is seen by every query
    if attn_mask is not None and attn_mask.dtype == "BOOL":
        attn_mask = _added(ctx, attn_mask, query.dtype)
    if not fused:
        out = _from_primitives(ctx, query, key, value, attn_mask, grouped)
        return out if seen is None else ctx.elementwise("PROD", out, seen)
    q, k, v = (ctx.unsqueeze_to(t, 4) for t in (query, key, value))
    out = ctx.add(
        "attention",
        {"query": q, "key": k, "value": v, "mask": attn_mask and ctx.unsqueeze_to(attn_mask, 4)},
        normalization_op="SOFTMAX",
        causal=is_causal and square,
        decomposable=True,
    )
    out = ctx.reshape(out, ctx.result.shape)
    return out if seen is None else ctx.elementwise("PROD", out, seen)


@converter(aten._scaled_dot_product_flash_attention_for_cpu.default, when=_deterministic)
def flash_attention_for_cpu(
    ctx: Context,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Tensor | None,
    scale: float | None,
) -> list[Tensor | None]:
    """_scaled_dot_product_flash_attention_for_cpu(Tensor query, Tensor key, Tensor value, float
    dropout_p=0.0, bool is_causal=False, *, Tensor? attn_mask=None, float? scale=None) -> (Tensor
    output, Tensor logsumexp)

    ``scaled_dot_product_attention`` for one device; the sums serve training.
    """
    arguments = (query, key, value, attn_mask, dropout_p, is_causal, scale, False)
    return _first(ctx, scaled_dot_product_attention(ctx, *arguments))


@converter(aten._scaled_dot_product_efficient_attention.default, when=_deterministic)
def efficient_attention(
    ctx: Context,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> list[Tensor | None]:
    """_scaled_dot_product_efficient_attention(Tensor query, Tensor key, Tensor value, Tensor?
    attn_bias, bool compute_log_sumexp, float dropout_p=0.0, bool is_causal=False, *, float?
    scale=None) -> (Tensor output, Tensor log_sumexp, Tensor philox_seed, Tensor philox_offset)

    ``scaled_dot_product_attention`` for one device; all but the output serve training.
    """
    arguments = (query, key, value, attn_bias, dropout_p, is_causal, scale, False)
    return _first(ctx, scaled_dot_product_attention(ctx, *arguments))


@converter(aten._scaled_dot_product_attention_math.default, when=_deterministic)
def attention_math(
    ctx: Context,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    dropout_mask: Tensor | None,
    scale: float | None,
    enable_gqa: bool,
) -> list[Tensor | None]:
    """_scaled_dot_product_attention_math(Tensor query, Tensor key, Tensor value, Tensor?
    attn_mask=None, float dropout_p=0.0, bool is_causal=False, Tensor? dropout_mask=None, *, float?
    scale=None, bool enable_gqa=False) -> (Tensor, Tensor)

    ``scaled_dot_product_attention`` by products; its second output, the shares, is not computed. A
    mask is always added here, a boolean one as 0 and 1.
    """
    added = attn_mask and ctx.cast(attn_mask, query.dtype)
    arguments = (query, key, value, added, dropout_p, is_causal, scale, enable_gqa)
    return _first(ctx, scaled_dot_product_attention(ctx, *arguments))


def _first(ctx: Context, output: Tensor) -> list[Tensor | None]:
    """An output, and None for the others that are tensors."""
    return [output, *[None] * (len(ctx.results) - 1)]


def _seen(ctx: Context, mask: Tensor, dtype: str) -> Tensor | None:
    """1 for a query that sees a key, 0 for one that sees none; None where all are known to."""
    if ctx.is_constant(mask):
        sees = ctx.value(mask).any(-1, keepdim=True)
        torch_dtype = getattr(torch, DTYPES[dtype].torch)
        return None if bool(sees.all()) else ctx.constant(sees.to(torch_dtype), "seen")
    return ctx.reduce("MAX", ctx.cast(mask, dtype), -1, keep_dims=True)


def _is_of_values(seen: Tensor, value: Tensor) -> bool:
    """Whether what queries see is the same for all of them, so that the value can carry it."""
    pairs = zip(reversed(seen.shape), reversed(value.shape), strict=False)
    return (
        1 < seen.rank <= value.rank
        and seen.shape[-2] == 1
        and all(size in (1, has) for size, has in pairs)
    )


def _from_primitives(
    ctx: Context, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, grouped: bool
) -> Tensor:
    """Heads that share a key and value are stacked along the length for the two products."""
    scores = ctx.matmul(_stacked(ctx, query, key) if grouped else query, key, transpose_b=True)
    if grouped:
        scores = ctx.reshape(scores, (*query.shape[:-1], key.shape[-2]))
    if mask is not None:
        scores = ctx.elementwise("SUM", scores, mask)
    shares = ctx.softmax(scores, -1)
    out = ctx.matmul(_stacked(ctx, shares, key) if grouped else shares, value)
    return ctx.reshape(out, ctx.result.shape)


def _stacked(ctx: Context, x: Tensor, key: Tensor) -> Tensor:
    """(..., heads, length, n) as (..., key's heads, group * length, n)."""
    group = x.shape[-3] // key.shape[-3]
    return ctx.reshape(x, (*x.shape[:-3], key.shape[-3], group * x.shape[-2], x.shape[-1]))


def _added(ctx: Context, mask: Tensor, dtype: str) -> Tensor:
    """A boolean mask as one that is added."""
    hidden = _MASKED[dtype]
    if ctx.is_constant(mask):
        torch_dtype = getattr(torch, DTYPES[dtype].torch)
        added = torch.zeros_like(ctx.value(mask), dtype=torch_dtype)
        return ctx.constant(added.masked_fill(~ctx.value(mask), hidden), "mask")
    return ctx.select(mask, ctx.scalar(0.0, dtype), ctx.scalar(hidden, dtype))


def _lower_triangle(ctx: Context, query: Tensor, key: Tensor) -> Tensor:
    """Query i sees the keys up to i."""
    length, keys = query.shape[-2], key.shape[-2]
    if isinstance(length, int) and isinstance(keys, int):
        mask = torch.ones(length, keys, dtype=torch.bool).tril()
        return ctx.constant(mask, "causal")
    return ctx.elementwise("GREATER", ctx.ramp((length, keys), (1, -1)), -1)


def _scaled(ctx: Context, query: Tensor, scale: float | None) -> Tensor:
    """The query times the scale, which is one through the root of its last size if not given."""
    depth = query.shape[-1]
    factor: Tensor | float
    if scale is not None:
        factor = scale
    elif isinstance(depth, int):
        factor = 1 / math.sqrt(depth)
    else:
        root = ctx.unary("SQRT", ctx.size(depth, "FLOAT"))
        factor = ctx.cast(ctx.unary("RECIP", root), query.dtype)
    return query if factor == 1 else ctx.elementwise("PROD", query, factor)
