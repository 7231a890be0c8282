# SPDX-License-Identifier: Apache-2.0
"""Normalisation by statistics of the input, or by running ones.

Shapes: as PyTorch's, any dynamic dims but the channels.
Dtypes: float32, float16, bfloat16; TensorRT computes the statistics in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trtpack_runtime import dims
from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.network import Tensor

from .context import Context
from .refusals import Refused
from .registry import converter

aten = torch.ops.aten
_FLOAT32_EPSILON = torch.finfo(torch.float32).eps


@converter(aten.layer_norm.default)
def layer_norm(
    ctx: Context,
    input: Tensor,
    normalized_shape: Sequence[dims.Dim],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    **_: Any,
) -> Tensor:
    """layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, Tensor? bias=None,
    float eps=1e-05, bool cudnn_enable=True) -> Tensor

    TensorRT 8 has a layer of its own for it too, which takes longer in float16 than primitives do:
    these are fused with what is around them (8.6, measured on BERT).
    """
    x = ctx.unsqueeze_to(input, 2)
    axes = tuple(range(x.rank - len(normalized_shape), x.rank))
    scale, shift = _affine(ctx, x, normalized_shape, weight, bias)
    scale, shift = ctx.unsqueeze_to(scale, x.rank), ctx.unsqueeze_to(shift, x.rank)
    if x.dtype == "HALF" and not ctx.has("10.0"):
        return ctx.reshape(_by_primitives(ctx, x, scale, shift, axes, eps), input.shape)
    return ctx.reshape(_normalized(ctx, x, scale, shift, axes, eps), input.shape)


@converter(aten.native_layer_norm.default)
def native_layer_norm(
    ctx: Context,
    input: Tensor,
    normalized_shape: Sequence[dims.Dim],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, None, None]:
    """native_layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight, Tensor? bias,
    float eps) -> (Tensor, Tensor, Tensor)

    The statistics serve training only.
    """
    return layer_norm(ctx, input, normalized_shape, weight, bias, eps), None, None


@converter(aten.rms_norm.default)
def rms_norm(
    ctx: Context,
    input: Tensor,
    normalized_shape: Sequence[dims.Dim],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """rms_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, float? eps=None)
    -> Tensor

    In float32, as eager PyTorch computes it.
    """
    x = ctx.cast(input, "FLOAT")
    axes = tuple(range(x.rank - len(normalized_shape), x.rank))
    square = ctx.reduce("AVG", ctx.elementwise("PROD", x, x), axes, keep_dims=True)
    epsilon = _FLOAT32_EPSILON if eps is None else eps
    root = ctx.unary("SQRT", ctx.elementwise("SUM", square, epsilon))
    normal = ctx.elementwise("DIV", x, root)
    if weight is not None:
        normal = ctx.elementwise("PROD", normal, ctx.cast(weight, "FLOAT"))
    return ctx.cast(normal, ctx.result.dtype)


@converter(aten.group_norm.default)
def group_norm(
    ctx: Context,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    **_: Any,
) -> Tensor:
    """group_norm(Tensor input, int num_groups, Tensor? weight=None, Tensor? bias=None,
    float eps=1e-05, bool cudnn_enabled=True) -> Tensor

    Before TensorRT 10.15 the layer scales groups, not channels, so a scale layer follows it. It
    takes groups of four dimensions or more (8.6, measured).
    Source: NvInfer.h, INormalizationLayer: scale and bias are [1, C, 1, 1] from addNormalizationV2
    on, [1, G, 1, 1] before.
    """
    if num_groups == 1:
        return _by_own_statistics(ctx, input, weight, bias, tuple(range(1, input.rank)), eps)
    x = ctx.reshape(input, (*input.shape, *(1,) * (4 - input.rank))) if input.rank < 4 else input
    axes = tuple(range(2, x.rank))
    if ctx.has("10.15"):
        scale, shift = _affine(ctx, x, (_channels(x),), weight, bias)
        normal = _normalized(
            ctx, x, _by_channel(ctx, scale, x), _by_channel(ctx, shift, x), axes, eps, num_groups
        )
        return ctx.reshape(normal, input.shape)
    scale, shift = _affine(ctx, x, (1, num_groups, *(1,) * len(axes)), None, None)
    normal = _normalized(ctx, x, scale, shift, axes, eps, num_groups)
    if weight is not None or bias is not None:
        normal = _scaled(ctx, normal, *_affine(ctx, x, (_channels(x),), weight, bias))
    return ctx.reshape(normal, input.shape)


@converter(aten.native_group_norm.default)
def native_group_norm(
    ctx: Context,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    group: int,
    eps: float,
    **_: Any,
) -> tuple[Tensor, None, None]:
    """native_group_norm(Tensor input, Tensor? weight, Tensor? bias, SymInt N, SymInt C,
    SymInt HxW, int group, float eps) -> (Tensor, Tensor, Tensor)

    The statistics serve training only.
    """
    return group_norm(ctx, input, group, weight, bias, eps), None, None


def _updates_statistics(
    *, use_input_stats: bool, running_mean: Tensor | None, **_: Any
) -> str | None:
    if use_input_stats and running_mean is not None:
        return "it updates running statistics, as in training"
    return None


@converter(aten.instance_norm.default, when=_updates_statistics)
def instance_norm(
    ctx: Context,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    eps: float,
    **_: Any,
) -> Tensor:
    """instance_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean,
    Tensor? running_var, bool use_input_stats, float momentum, float eps, bool cudnn_enabled)
    -> Tensor
    """
    if running_mean is not None and running_var is not None:
        return _by_statistics(ctx, input, weight, bias, running_mean, running_var, eps)
    return _by_own_statistics(ctx, input, weight, bias, tuple(range(2, input.rank)), eps)


@converter(aten._native_batch_norm_legit_no_training.default)
def native_batch_norm(
    ctx: Context,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float,
    **_: Any,
) -> tuple[Tensor, None, None]:
    """_native_batch_norm_legit_no_training(Tensor input, Tensor? weight, Tensor? bias,
    Tensor running_mean, Tensor running_var, float momentum, float eps)
    -> (Tensor, Tensor, Tensor)
    """
    return _by_statistics(ctx, input, weight, bias, running_mean, running_var, eps), None, None


@converter(aten._native_batch_norm_legit.no_stats)
def native_batch_norm_of_the_batch(
    ctx: Context, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, **_: Any
) -> tuple[Tensor, None, None]:
    """_native_batch_norm_legit.no_stats(Tensor input, Tensor? weight, Tensor? bias, bool training,
    float momentum, float eps) -> (Tensor, Tensor, Tensor)
    """
    axes = (0, *range(2, input.rank))
    return _by_own_statistics(ctx, input, weight, bias, axes, eps), None, None


def _trains(*, training: bool, running_mean: Tensor | None, **_: Any) -> str | None:
    return _updates_statistics(use_input_stats=training, running_mean=running_mean)


@converter(aten.batch_norm.default, when=_trains)
def batch_norm(
    ctx: Context,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    eps: float,
    **_: Any,
) -> Tensor:
    """batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean,
    Tensor? running_var, bool training, float momentum, float eps, bool cudnn_enabled) -> Tensor

    Without running statistics the batch's own are taken.
    """
    if running_mean is not None and running_var is not None:
        return _by_statistics(ctx, input, weight, bias, running_mean, running_var, eps)
    return _by_own_statistics(ctx, input, weight, bias, (0, *range(2, input.rank)), eps)


def _by_statistics(
    ctx: Context,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> Tensor:
    """One scale and one shift a channel, evaluated now where the statistics are constants.

    Beside float32 statistics a narrower ``x`` is computed in float32, as PyTorch does; so is
    bfloat16, whose digits are too few for a scale and a shift that nearly cancel.
    """
    wide = "FLOAT" if x.dtype == "BF16" else mean.dtype
    variance = ctx.elementwise("SUM", ctx.cast(variance, "FLOAT"), eps)
    scale = ctx.unary("RECIP", ctx.unary("SQRT", variance))
    if weight is not None:
        scale = ctx.elementwise("PROD", scale, ctx.cast(weight, "FLOAT"))
    shift = ctx.unary("NEG", ctx.elementwise("PROD", ctx.cast(mean, "FLOAT"), scale))
    if bias is not None:
        shift = ctx.elementwise("SUM", shift, ctx.cast(bias, "FLOAT"))
    out = _scaled(ctx, ctx.cast(x, wide), ctx.cast(scale, wide), ctx.cast(shift, wide))
    return ctx.cast(out, x.dtype)


def _by_own_statistics(
    ctx: Context,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    axes: tuple[int, ...],
    eps: float,
) -> Tensor:
    scale, shift = _affine(ctx, x, (_channels(x),), weight, bias)
    return _normalized(ctx, x, _by_channel(ctx, scale, x), _by_channel(ctx, shift, x), axes, eps)


def _normalized(
    ctx: Context,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    axes: tuple[int, ...],
    eps: float,
    groups: int | None = None,
) -> Tensor:
    kind = "normalization_v2" if ctx.has("10.15") else "normalization"
    operands = {"input": x, "scale": scale, "bias": shift}
    return ctx.add(kind, operands, axes=axes, epsilon=eps, num_groups=groups)


def _by_primitives(
    ctx: Context, x: Tensor, scale: Tensor, shift: Tensor, axes: tuple[int, ...], eps: float
) -> Tensor:
    """In float32, as TensorRT's layer computes it."""
    wide = ctx.cast(x, "FLOAT")
    centred = ctx.elementwise("SUB", wide, ctx.reduce("AVG", wide, axes, keep_dims=True))
    square = ctx.elementwise("PROD", centred, centred)
    variance = ctx.elementwise("SUM", ctx.reduce("AVG", square, axes, keep_dims=True), eps)
    normal = ctx.elementwise("DIV", centred, ctx.unary("SQRT", variance))
    scaled = ctx.elementwise("PROD", normal, ctx.cast(scale, "FLOAT"))
    return ctx.cast(ctx.elementwise("SUM", scaled, ctx.cast(shift, "FLOAT")), x.dtype)


def _scaled(ctx: Context, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x * scale + shift`` by channel; the scale layer wants four dims."""
    if x.rank > 3 and ctx.is_constant(scale) and ctx.is_constant(shift):
        operands = {"input": x, "scale": scale, "shift": shift}
        return ctx.add("scale_nd", operands, mode="CHANNEL", channel_axis=1)
    scaled = ctx.elementwise("PROD", x, _by_channel(ctx, scale, x))
    return ctx.elementwise("SUM", scaled, _by_channel(ctx, shift, x))


def _affine(
    ctx: Context, x: Tensor, shape: Sequence[dims.Dim], weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scale and shift in ``x``'s type; ones and zeros where they are absent."""
    sizes = tuple(shape)
    if not dims.is_static(sizes):
        raise Refused("the normalised dims are dynamic")
    dtype = getattr(torch, DTYPES[x.dtype].torch)
    scale = weight or ctx.constant(torch.ones(sizes, dtype=dtype), "ones")
    shift = bias or ctx.constant(torch.zeros(sizes, dtype=dtype), "zeros")
    return ctx.cast(scale, x.dtype), ctx.cast(shift, x.dtype)


def _channels(x: Tensor) -> int:
    channels = x.shape[1]
    if not isinstance(channels, int):
        raise Refused("the number of channels is dynamic")
    return channels


def _by_channel(ctx: Context, vector: Tensor, x: Tensor) -> Tensor:
    return ctx.reshape(vector, (1, *vector.shape, *(1,) * (x.rank - 2)))
