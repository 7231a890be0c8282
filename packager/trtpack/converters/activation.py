# SPDX-License-Identifier: Apache-2.0
"""Activation functions.

Shapes: any rank; the output has the input's, dynamic dims included.
Dtypes: float32, float16, bfloat16; ``relu``, ``relu6`` and ``hardtanh`` integers
too. Formulas are NvInfer.h's ActivationType.
NaN: relu, relu6, hardtanh and hardsigmoid may answer a number for it, where PyTorch answers NaN;
measured on TensorRT 8.6, documented nowhere.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from trtpack_runtime.dims import Dim
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .extrema import clamp
from .promotion import needs_wider_integers
from .registry import converter

aten = torch.ops.aten


@converter(aten.relu.default, when=needs_wider_integers)
def relu(ctx: Context, self: Tensor) -> Tensor:
    """relu(Tensor self) -> Tensor"""
    if self.dtype in FLOATS or ctx.has("10.0"):
        return ctx.activation("RELU", self)
    return ctx.elementwise("MAX", self, 0)


@converter(aten.relu6.default, when=needs_wider_integers)
def relu6(ctx: Context, self: Tensor) -> Tensor:
    """relu6(Tensor self) -> Tensor"""
    return clamp(ctx, self, 0, 6)


@converter(aten.hardtanh.default, when=needs_wider_integers)
def hardtanh(ctx: Context, self: Tensor, min_val: float = -1, max_val: float = 1) -> Tensor:
    """hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor"""
    return clamp(ctx, self, min_val, max_val)


@converter(aten.leaky_relu.default)
def leaky_relu(ctx: Context, self: Tensor, negative_slope: float = 0.01) -> Tensor:
    """leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor"""
    return ctx.activation("LEAKY_RELU", self, alpha=float(negative_slope))


def _leaks_at_random(*, training: bool = False, **_: Any) -> str | None:
    return "its slopes are random, as in training" if training else None


@converter(aten.rrelu_with_noise_functional.default, when=_leaks_at_random)
def rrelu(
    ctx: Context,
    self: Tensor,
    noise: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """rrelu_with_noise_functional(Tensor self, Tensor noise, Scalar lower=0.125, Scalar
    upper=0.33333333333333331, bool training=False, Generator? generator=None) -> (Tensor, Tensor
    noise_out)

    Outside of training the slope is the middle one.
    """
    return leaky_relu(ctx, self, (lower + upper) / 2), noise


@converter(aten.prelu.default, aten._prelu_kernel.default)
def prelu(ctx: Context, self: Tensor, weight: Tensor) -> Tensor:
    """prelu(Tensor self, Tensor weight) -> Tensor
    _prelu_kernel(Tensor self, Tensor weight) -> Tensor

    A vector of slopes belongs to dim 1; the kernel form brings them in the input's rank.
    """
    if weight.rank != self.rank:
        channel = min(1, self.rank - 1)
        sizes: list[Dim] = [1] * self.rank
        if self.rank:
            sizes[channel] = weight.shape[0] if weight.rank else 1
        weight = ctx.reshape(weight, sizes)
    return ctx.add("parametric_relu", {"input": self, "slopes": weight})


def _unscaled_input(*, input_scale: float = 1, **_: Any) -> str | None:
    return None if input_scale == 1 else f"kSELU has no input_scale, got {input_scale}"


@converter(aten.elu.default, when=_unscaled_input)
def elu(
    ctx: Context, self: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1
) -> Tensor:
    """elu(Tensor self, Scalar alpha=1, Scalar scale=1, Scalar input_scale=1) -> Tensor

    ``F.elu`` (scale 1) and ``F.selu`` both arrive here; kSELU covers both.

    Errors: none; an ``input_scale`` other than 1 is refused and stays in PyTorch.
    Source: NvInfer.h, kSELU: x > 0 ? beta * x : beta * (alpha * exp(x) - alpha).
    """
    return ctx.activation("SELU", self, alpha=float(alpha), beta=float(scale))


@converter(aten.selu.default)
def selu(ctx: Context, self: Tensor) -> Tensor:
    """selu(Tensor self) -> Tensor"""
    return elu(ctx, self, alpha=1.6732632423543772, scale=1.0507009873554805)


@converter(aten.celu.default)
def celu(ctx: Context, self: Tensor, alpha: float = 1.0) -> Tensor:
    """celu(Tensor self, Scalar alpha=1.) -> Tensor

    ``alpha * elu(x / alpha)``.
    """
    if alpha == 1:
        return ctx.activation("ELU", self, alpha=1.0)
    inner = ctx.elementwise("PROD", self, 1 / alpha)
    return ctx.elementwise("PROD", ctx.activation("ELU", inner, alpha=1.0), float(alpha))


@converter(aten.gelu.default)
def gelu(ctx: Context, self: Tensor, approximate: str = "none") -> Tensor:
    """gelu(Tensor self, *, str approximate="none") -> Tensor

    One layer from TensorRT 10.0; erf or tanh and products before.
    """
    if ctx.has("10.0"):
        return ctx.activation("GELU_TANH" if approximate == "tanh" else "GELU_ERF", self)

    def compute(x: Tensor) -> Tensor:
        if approximate == "tanh":
            cube = ctx.elementwise("PROD", ctx.elementwise("PROD", x, x), x)
            inner = ctx.elementwise("SUM", x, ctx.elementwise("PROD", cube, 0.044715))
            share = ctx.activation("TANH", ctx.elementwise("PROD", inner, math.sqrt(2 / math.pi)))
        else:
            share = ctx.unary("ERF", ctx.elementwise("PROD", x, math.sqrt(0.5)))
        half = ctx.elementwise("PROD", x, 0.5)
        return ctx.elementwise("PROD", half, ctx.elementwise("SUM", share, 1.0))

    return ctx.in_float32(self, compute)


@converter(aten.sigmoid.default)
def sigmoid(ctx: Context, self: Tensor) -> Tensor:
    """sigmoid(Tensor self) -> Tensor"""
    return ctx.activation("SIGMOID", ctx.cast(self, ctx.result.dtype))


@converter(aten.tanh.default)
def tanh(ctx: Context, self: Tensor) -> Tensor:
    """tanh(Tensor self) -> Tensor"""
    return ctx.activation("TANH", ctx.cast(self, ctx.result.dtype))


@converter(aten.silu.default)
def silu(ctx: Context, self: Tensor) -> Tensor:
    """silu(Tensor self) -> Tensor"""
    return ctx.elementwise("PROD", self, ctx.activation("SIGMOID", self))


@converter(aten.hardsigmoid.default)
def hardsigmoid(ctx: Context, self: Tensor) -> Tensor:
    """hardsigmoid(Tensor self) -> Tensor"""
    return ctx.activation("HARD_SIGMOID", self, alpha=1 / 6, beta=0.5)


@converter(aten.hardswish.default)
def hardswish(ctx: Context, self: Tensor) -> Tensor:
    """hardswish(Tensor self) -> Tensor"""
    return ctx.elementwise("PROD", self, hardsigmoid(ctx, self))


@converter(aten.softplus.default)
def softplus(ctx: Context, self: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor

    The input itself where ``beta * x`` is above ``threshold``.
    Source: NvInfer.h, kSOFTPLUS: alpha * log(exp(beta * x) + 1).
    """
    smooth = ctx.activation("SOFTPLUS", self, alpha=1 / beta, beta=float(beta))
    scaled = self if beta == 1 else ctx.elementwise("PROD", self, float(beta))
    is_linear = ctx.elementwise("GREATER", scaled, float(threshold))
    return ctx.select(is_linear, self, smooth)


@converter(aten.mish.default)
def mish(ctx: Context, self: Tensor) -> Tensor:
    """mish(Tensor self) -> Tensor"""
    return ctx.elementwise("PROD", self, ctx.activation("TANH", softplus(ctx, self)))


@converter(aten.log_sigmoid.default)
def log_sigmoid(ctx: Context, self: Tensor) -> Tensor:
    """log_sigmoid(Tensor self) -> Tensor

    ``-softplus(-x)``, which does not underflow.
    """
    return ctx.unary("NEG", softplus(ctx, ctx.unary("NEG", self)))


@converter(aten.log_sigmoid_forward.default)
def log_sigmoid_forward(ctx: Context, self: Tensor) -> tuple[Tensor, None]:
    """log_sigmoid_forward(Tensor self) -> (Tensor output, Tensor buffer)

    The buffer serves training only.
    """
    return log_sigmoid(ctx, self), None


@converter(aten.glu.default)
def glu(ctx: Context, self: Tensor, dim: int = -1) -> Tensor:
    """glu(Tensor self, int dim=-1) -> Tensor"""
    half = ctx.result.shape
    start = tuple(half[d] if d == dim % self.rank else 0 for d in range(self.rank))
    value = ctx.slice(self, (0,) * self.rank, half)
    gate = ctx.slice(self, start, half)
    return ctx.elementwise("PROD", value, ctx.activation("SIGMOID", gate))


@converter(aten.threshold.default, when=needs_wider_integers)
def threshold(ctx: Context, self: Tensor, threshold: float, value: float) -> Tensor:
    """threshold(Tensor self, Scalar threshold, Scalar value) -> Tensor"""
    above = ctx.elementwise("GREATER", self, threshold)
    return ctx.select(above, self, ctx.scalar(value, self.dtype, self.rank))


@converter(aten.hardshrink.default)
def hardshrink(ctx: Context, self: Tensor, lambd: float = 0.5) -> Tensor:
    """hardshrink(Tensor self, Scalar lambd=0.5) -> Tensor"""
    outside = ctx.elementwise("GREATER", ctx.unary("ABS", self), float(lambd))
    return ctx.select(outside, self, ctx.scalar(0.0, self.dtype, self.rank))


@converter(aten.softshrink.default)
def softshrink(ctx: Context, self: Tensor, lambd: float = 0.5) -> Tensor:
    """softshrink(Tensor self, Scalar lambd=0.5) -> Tensor

    What lies beyond ``-lambd`` to ``lambd``.
    """
    inside = ctx.activation("CLIP", self, alpha=-float(lambd), beta=float(lambd))
    return ctx.elementwise("SUB", self, inside)
