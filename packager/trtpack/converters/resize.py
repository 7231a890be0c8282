# SPDX-License-Identifier: Apache-2.0
"""Up- and downsampling in every mode."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .refusals import Refused, unless_floats
from .registry import converter
from .resampling import Filter, antialiased, corner_step, resampled

aten = torch.ops.aten

_LARGEST_DENOMINATOR = 1 << 10
"""Of scales that the layer multiplies a dynamic size by without rounding."""


def _overloads(*packets: OpOverloadPacket) -> list[OpOverload]:
    """Both spellings of each: scales one by one, and as a list."""
    return [overload for packet in packets for overload in (packet.default, packet.vec)]


@converter(*_overloads(aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d))
def upsample_nearest(ctx: Context, **arguments: Any) -> Tensor:
    """upsample_nearest2d(Tensor self, SymInt[2] output_size, float? scales_h=None, float?
    scales_w=None) -> Tensor

    TensorRT computes the scale from the sizes. Where PyTorch was given another one, as for
    1.7 times 3 elements, they are gathered by a table.

    Shapes: (N, C, ...); all may be dynamic.
    Dtypes: float16, bfloat16, float32; others by way of float32.
    Source: torch.nn.functional.interpolate: element i is from floor(i / scale).
    """
    return _nearest(ctx, arguments, aten.upsample_nearest1d.default, "ASYMMETRIC", "FLOOR")


@converter(
    *_overloads(
        aten._upsample_nearest_exact1d,
        aten._upsample_nearest_exact2d,
        aten._upsample_nearest_exact3d,
    )
)
def upsample_nearest_exact(ctx: Context, **arguments: Any) -> Tensor:
    """_upsample_nearest_exact2d(Tensor self, SymInt[2] output_size, float? scales_h=None, float?
    scales_w=None) -> Tensor

    Source: torch.nn.functional.interpolate: element i is from floor((i + 0.5) / scale).
    """
    return _nearest(ctx, arguments, aten._upsample_nearest_exact1d.default, "HALF_PIXEL", "HALF_UP")


@converter(
    *_overloads(aten.upsample_linear1d, aten.upsample_bilinear2d, aten.upsample_trilinear3d),
    when=unless_floats,
)
def upsample_linear(ctx: Context, **arguments: Any) -> Tensor:
    """upsample_bilinear2d(Tensor self, SymInt[2] output_size, bool align_corners, float?
    scales_h=None, float? scales_w=None) -> Tensor

    Where the given scales do not lead to the sizes exactly, a product with PyTorch's own weights
    along each dim.

    Shapes: (N, C, ...); all may be dynamic.
    Dtypes: float16, bfloat16, float32.
    Source: torch.nn.functional.interpolate.
    """
    return _interpolated(ctx, arguments, aten.upsample_bilinear2d.default, "LINEAR")


@converter(*_overloads(aten.upsample_bicubic2d), when=unless_floats)
def upsample_bicubic(ctx: Context, **arguments: Any) -> Tensor:
    """upsample_bicubic2d(Tensor self, SymInt[2] output_size, bool align_corners, float?
    scales_h=None, float? scales_w=None) -> Tensor
    """
    return _interpolated(ctx, arguments, aten.upsample_bicubic2d.default, "CUBIC")


@converter(*_overloads(aten._upsample_bilinear2d_aa), when=unless_floats)
def upsample_bilinear_antialiased(ctx: Context, **arguments: Any) -> Tensor:
    """_upsample_bilinear2d_aa(Tensor self, SymInt[2] output_size, bool align_corners, float?
    scales_h=None, float? scales_w=None) -> Tensor

    TensorRT has no antialiasing: a product with PyTorch's own weights along each dim.
    """
    return _weighted(ctx, arguments, aten._upsample_bilinear2d_aa.default, "LINEAR")


@converter(*_overloads(aten._upsample_bicubic2d_aa), when=unless_floats)
def upsample_bicubic_antialiased(ctx: Context, **arguments: Any) -> Tensor:
    """_upsample_bicubic2d_aa(Tensor self, SymInt[2] output_size, bool align_corners, float?
    scales_h=None, float? scales_w=None) -> Tensor
    """
    return _weighted(ctx, arguments, aten._upsample_bicubic2d_aa.default, "CUBIC")


def _nearest(
    ctx: Context, arguments: dict[str, Any], op: OpOverload, coordinates: str, rounding: str
) -> Tensor:
    x, scales = _input(arguments), _scales(arguments)
    exact = _exact(x.shape[2:], ctx.result.shape[2:], scales)
    given = {} if exact else _placing(x, ctx.result, scales)
    if not exact and not given:
        for axis, (have, want) in enumerate(_sizes(x, ctx.result), 2):
            x = ctx.gather(x, _places(ctx, have, want, scales[axis - 2], op), axis)
        return x
    out = ctx.add(
        "resize",
        {"input": x if x.dtype in FLOATS else ctx.cast(x, "FLOAT")},
        **given or {"shape": ctx.result.shape},
        resize_mode="NEAREST",
        coordinate_transformation=coordinates,
        nearest_rounding=rounding,
    )
    return ctx.cast(out, x.dtype)


def _interpolated(ctx: Context, arguments: dict[str, Any], op: OpOverload, mode: Filter) -> Tensor:
    x, aligned = _input(arguments), arguments["align_corners"]
    scales = _scales(arguments)
    exact = aligned or _exact(x.shape[2:], ctx.result.shape[2:], scales)
    given = {} if exact else _placing(x, ctx.result, scales)
    if not exact and not given:
        return _weighted(ctx, arguments, op, mode)
    return ctx.add(
        "resize",
        {"input": x},
        **given or {"shape": ctx.result.shape},
        resize_mode=mode,
        coordinate_transformation="ALIGN_CORNERS" if aligned else "HALF_PIXEL",
        selector_for_single_pixel="UPPER" if aligned else None,
        cubic_coeff=-0.75 if mode == "CUBIC" else None,
    )


def _weighted(ctx: Context, arguments: dict[str, Any], op: OpOverload, mode: Filter) -> Tensor:
    """A product along every dim: with the weights that ``op`` gives to a single line of fixed
    size, or with those that the formulas give to an open one."""
    x, scales = _input(arguments), _scales(arguments)
    for axis, (have, want) in reversed(list(enumerate(_sizes(x, ctx.result), 2))):
        scale = scales[axis - 2]
        if have == want and scale in (None, 1):
            continue
        if isinstance(have, int) and isinstance(want, int):
            each = torch.eye(have).view(1, 1, have, have)
            weights = op(each, [have, want], arguments["align_corners"], None, scale)
            matrix = ctx.constant(weights.view(have, want), f"weights_{axis}")
            x = ctx.product_along(x, ctx.cast(matrix, x.dtype), axis)
        else:
            x = _along(ctx, x, axis, want, op, mode, scale, arguments["align_corners"])
    return x


def _along(
    ctx: Context,
    x: Tensor,
    axis: int,
    want: Dim,
    op: OpOverload,
    mode: Filter,
    scale: float | None,
    aligned: bool,
) -> Tensor:
    """One open dim; aligned corners come here only with antialiasing."""
    step = None if scale is None else 1 / scale
    if not op.name().endswith("_aa"):
        return resampled(ctx, x, axis, want, mode, step)
    if aligned:
        return antialiased(ctx, x, axis, want, mode, corner_step(ctx, x.shape[axis], want))
    return antialiased(ctx, x, axis, want, mode, step)


def _input(arguments: dict[str, Any]) -> Tensor:
    x = arguments.get("input") or arguments["self"]
    assert isinstance(x, Tensor)
    return x


def _scales(arguments: dict[str, Any]) -> list[float | None]:
    """The scale of every spatial dim, None where PyTorch computes it from the sizes."""
    spatial = _input(arguments).rank - 2
    if "scale_factors" in arguments:
        return list(arguments["scale_factors"] or [None] * spatial)
    return [v for k, v in arguments.items() if k.startswith("scales")]


def _exact(have: Sequence[Dim], want: Sequence[Dim], scales: Sequence[float | None]) -> bool:
    """Whether the scales are the quotients of the sizes."""

    def leads(size: Dim, scale: float, to: Dim) -> bool:
        if isinstance(size, int) and isinstance(to, int):
            return size * scale == to
        exact = Fraction(scale)
        return size * exact.numerator == to * exact.denominator

    return all(
        scale is None or leads(size, scale, to)
        for size, to, scale in zip(have, want, scales, strict=True)
    )


def _placing(x: Tensor, result: Tensor, scales: Sequence[float | None]) -> dict[str, Any]:
    """The scales themselves for the layer, where they lead to dynamic sizes by rounding down."""
    sizes = zip(x.shape[2:], result.shape[2:], scales, strict=True)
    if dims.is_static(x.shape[2:]) or None in scales:
        return {}
    for have, want, scale in sizes:
        exact = Fraction(scale or 1)
        if exact.denominator > _LARGEST_DENOMINATOR:
            return {}
        if dims.floordiv(dims.mul(have, exact.numerator), exact.denominator) != want:
            return {}
    return {"scales": (1.0, 1.0, *scales)}


def _places(ctx: Context, have: Dim, want: Dim, scale: float | None, op: OpOverload) -> Tensor:
    """The nearest element for each new one, by ``op`` on a line of fixed sizes."""
    if isinstance(have, int) and isinstance(want, int):
        line = torch.arange(have, dtype=torch.float32).view(1, 1, have)
        return ctx.constant(op(line, [want], scale).view(-1).long(), "nearest")
    if not scale:
        raise Refused("some dims have a scale, and a dynamic one has none")
    at = ctx.cast(ctx.ramp((want,), (1,)), "FLOAT")
    if op == aten._upsample_nearest_exact1d.default:
        at = ctx.elementwise("SUM", at, 0.5)
    place = ctx.unary("FLOOR", ctx.elementwise("PROD", at, 1 / scale))
    return ctx.elementwise("MIN", ctx.cast(place, "INT64"), ctx.size(have - 1, "INT64", 1))


def _sizes(x: Tensor, result: Tensor) -> list[tuple[Dim, Dim]]:
    """The spatial sizes before and after."""
    return list(zip(x.shape[2:], result.shape[2:], strict=True))
