# SPDX-License-Identifier: Apache-2.0
"""Numbers of few bits with scales: INT8, FP8 and weights in INT4.

Weights stay as they are in front of a pair of layers, or stored in few bits in front of one, so
that TensorRT sees how they are quantized. Scales are kept to the bit. Not every TensorRT has scales
for blocks of other types than INT4: those of INT8 and FP8 are dequantized as the rows of a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from trtpack.quantization.operators import DEQUANTIZE, FAKE_QUANTIZE, RANGES
from trtpack.target import Target
from trtpack_runtime.dims import Dim
from trtpack_runtime.dtypes import DTYPES, by_torch
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .refusals import Refused, first_reason, unless_floats
from .registry import converter

aten = torch.ops.aten
_NO_BLOCKS = "TensorRT has block scales for weights only, and these numbers are computed"


def _unless_computed(*, dtype: str, target: Target, **arguments: Any) -> str | None:
    return first_reason(
        unless_floats(**{k: v for k, v in arguments.items() if k in ("x", "scale")}),
        None if dtype == "INT4" else why_not(dtype, target),
    )


def why_not(dtype: str, target: Target) -> str | None:
    """Why a target has no numbers of a quantized type, or None."""
    if dtype == "INT8":
        return None
    if not target.tensorrt_at_least("10.0"):
        return f"TensorRT has {dtype} from 10.0 on"
    if dtype == "FP8":
        return None if target.has_fp8 else f"{target.device} (SM {target.sm}) has no FP8"
    if target.rtx_capability == "SM75":
        return "TensorRT-RTX has INT4 from SM 8.0 on"
    return None


@converter(FAKE_QUANTIZE, when=_unless_computed)
def fake_quantize(ctx: Context, x: Tensor, scale: Tensor, axis: int | None, dtype: str) -> Tensor:
    """fake_quantize(Tensor x, Tensor scale, int? axis, str dtype) -> Tensor

    What ``recognise_quantization`` finds. TensorRT scales the channels of weights only: channels of
    anything else are divided by their scales first. INT4 is for weights, which are rounded now.

    Shapes: any; a scale of no dim, one for each channel, or one for each block of weights along
    ``axis``: one of the last two in INT4, else the last.
    Dtypes: float16, bfloat16, float32; INT8, INT4, and FP8 from TensorRT 10.0 on where the device
    has it.
    Errors: a scale that is not a positive constant, blocks of what is no weight.
    Source: IQuantizeLayer, IDequantizeLayer; the operator Dequantize of TensorRT 10.
    """
    _require_positive(ctx, scale)
    if dtype == "INT4":
        return _weights(ctx, _rounded(ctx, x, scale, axis), scale, axis, dtype, x.dtype)
    if scale.rank and not ctx.is_constant(x):
        apart = _spread(ctx, scale, x, axis)
        inner = ctx.elementwise("DIV", ctx.cast(x, "FLOAT"), apart)
        inner = _pair(ctx, inner, ctx.scalar(1.0, "FLOAT"), None, dtype)
        return ctx.cast(ctx.elementwise("PROD", inner, apart), x.dtype)
    if scale.rank > 1:
        return ctx.reshape(_pair(ctx, *_as_rows(ctx, x, scale, axis), 0, dtype), x.shape)
    return _pair(ctx, x, scale, axis, dtype)


@converter(DEQUANTIZE)
def dequantize(
    ctx: Context, stored: Tensor, scale: Tensor, axis: int | None, dtype: str, out: torch.dtype
) -> Tensor:
    """dequantize(Tensor stored, Tensor scale, int? axis, str dtype, ScalarType out) -> Tensor

    Weights that are stored in few bits. A TensorRT that has no such numbers gets the floats that
    they stand for; release 8 quantizes those of int8 again but where blocks have scales, which
    gives the same numbers.

    Shapes: any; scales as for ``fake_quantize``.
    Dtypes: int8, also for INT4, and float8_e4m3fn.
    Errors: numbers that are no constant, a scale that is not a positive one.
    Source: IDequantizeLayer.
    """
    _require_positive(ctx, scale)
    if not ctx.is_constant(stored):
        raise Refused("it reads stored numbers that are no constant")
    return _weights(ctx, stored, scale, axis, dtype, by_torch(out).name)


def _weights(
    ctx: Context, stored: Tensor, scale: Tensor, axis: int | None, dtype: str, out: str
) -> Tensor:
    if why_not(dtype, ctx.target) or not ctx.has("10.0"):
        floats = _floats(ctx, stored, scale, axis)
        again = dtype == "INT8" and scale.rank < 2
        return ctx.cast(_pair(ctx, floats, scale, axis, dtype) if again else floats, out)
    shape = stored.shape
    if dtype == "INT4":
        stored = ctx.packed(stored)
    elif scale.rank > 1:
        (stored, scale), axis = _as_rows(ctx, stored, scale, axis), 0
    return _dequantized(ctx, stored, scale, axis, out, shape)


def _as_rows(ctx: Context, x: Tensor, scale: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
    """Blocks along the last dim as the rows of a matrix, and a scale for each row."""
    if axis != x.rank - 1:
        raise Refused("blocks of this type have to be along the last dim")
    count = math.prod(scale.shape)
    block = x.shape[-1] // scale.shape[-1]
    return ctx.reshape(x, (count, block)), ctx.reshape(scale, (count,))


def _floats(ctx: Context, stored: Tensor, scale: Tensor, axis: int | None) -> Tensor:
    """What stored numbers stand for, as constants."""
    numbers = ctx.cast(stored, "FLOAT")
    return ctx.elementwise("PROD", numbers, _spread(ctx, scale, stored, axis))


def _require_positive(ctx: Context, scale: Tensor) -> None:
    if not ctx.is_constant(scale):
        raise Refused("TensorRT takes scales that are known when the engine is built")
    value = ctx.value(scale)
    if not bool(((value > 0) & value.isfinite()).all()):
        raise Refused("TensorRT takes scales above 0 only, this one has others")


def _spread(ctx: Context, scale: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """The scales in FLOAT, in a shape that broadcasts to ``x``."""
    scale = ctx.cast(scale, "FLOAT")
    if axis is None or scale.rank == 0:
        return scale
    if scale.rank == 1:
        return ctx.reshape(scale, (*scale.shape, *(1,) * (x.rank - axis - 1)))
    repeats = x.shape[axis] // scale.shape[axis]
    return ctx.fold(aten.repeat_interleave.self_int, scale, repeats, axis, use="spread")


def _pair(ctx: Context, x: Tensor, scale: Tensor, axis: int | None, dtype: str) -> Tensor:
    """Both layers; a number alone has a dim, without which they are refused."""
    given = ctx.reshape(x, (1,)) if x.rank == 0 else x
    narrow = ctx.before_cast(given)
    widened = given.dtype == "FLOAT" and narrow.dtype in FLOATS  # which changes no number
    if widened and _met(ctx, scale, narrow.dtype, dtype)[1] == narrow.dtype:
        given = narrow
    met_scale, met = _met(ctx, scale, given.dtype, dtype)
    operands = {"input": ctx.cast(given, met), "scale": met_scale}
    axis = axis if scale.rank else None
    quantized = ctx.add("quantize", operands, output_type=dtype, axis=axis)
    return _dequantized(ctx, quantized, scale, axis, x.dtype, x.shape)


def _dequantized(
    ctx: Context, stored: Tensor, scale: Tensor, axis: int | None, dtype: str, shape: Sequence[Dim]
) -> Tensor:
    """The second layer, what it answers in ``shape``; whoever casts that gets it in that type at
    once."""
    axis = axis if scale.rank else None

    def in_type(wanted: str) -> Tensor | None:
        met_scale, met = _met(ctx, scale, wanted, stored.dtype) if wanted in FLOATS else (scale, "")
        if met != wanted:
            return None
        operands = {"input": stored, "scale": met_scale}
        layer = ctx.add("dequantize", operands, output_type=met, axis=axis)
        return ctx.reshape(layer, shape)

    made = in_type(dtype) or in_type("FLOAT")
    assert made is not None
    ctx.offer(made, in_type)
    return ctx.cast(made, dtype)


def _met(ctx: Context, scale: Tensor, dtype: str, few: str) -> tuple[Tensor, str]:
    """A scale, and the type of floats that it meets, neither of which changes its value.

    Release 8 scales in FLOAT whatever it meets. From 10.13 on a scale in FLOAT may meet any float,
    but where TensorRT-RTX dequantizes INT4; before, their types are equal.
    """
    scale = ctx.cast(scale, "FLOAT")
    if dtype == "FLOAT" or not ctx.has("10.0") or (ctx.has("10.13") and few != "INT4"):
        return scale, dtype
    value = ctx.value(scale)
    narrow = value.to(getattr(torch, DTYPES[dtype].torch))
    same = bool((narrow.float() == value).all())
    return (ctx.cast(scale, dtype), dtype) if same else (scale, "FLOAT")


def _rounded(ctx: Context, x: Tensor, scale: Tensor, axis: int | None) -> Tensor:
    """Weights as whole numbers in int8."""
    if not ctx.is_constant(x):
        raise Refused(_NO_BLOCKS)
    spread = _spread(ctx, scale, x, axis)
    scaled = ctx.fold(aten.div.Tensor, ctx.cast(x, "FLOAT"), spread, use="scaled")
    whole = ctx.fold(aten.round.default, scaled, use="rounded")
    held = ctx.fold(aten.clamp.default, whole, *RANGES["INT4"], use="saturated")
    return ctx.cast(held, "INT8")
