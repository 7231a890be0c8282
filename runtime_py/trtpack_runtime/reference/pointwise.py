# SPDX-License-Identifier: Apache-2.0
"""Layers that compute each element on its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from trtpack_runtime.dtypes import DTYPES

from .registry import kernel

T = torch.Tensor


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of a TensorRT type."""
    dtype = getattr(torch, DTYPES[name].torch)
    assert isinstance(dtype, torch.dtype)
    return dtype


_ACTIVATIONS: dict[str, Callable[[T, float, float], T]] = {
    "RELU": lambda x, a, b: torch.relu(x),
    "SIGMOID": lambda x, a, b: torch.sigmoid(x),
    "TANH": lambda x, a, b: torch.tanh(x),
    "LEAKY_RELU": lambda x, a, b: torch.where(x >= 0, x, a * x),
    "ELU": lambda x, a, b: torch.where(x >= 0, x, a * torch.expm1(x)),
    "SELU": lambda x, a, b: b * torch.where(x > 0, x, a * torch.expm1(x)),
    "SOFTSIGN": lambda x, a, b: x / (1 + x.abs()),
    "SOFTPLUS": lambda x, a, b: a * torch.logaddexp(b * x, torch.zeros_like(x)),
    "CLIP": lambda x, a, b: x.clamp(max=b).clamp(min=a),
    "HARD_SIGMOID": lambda x, a, b: (a * x + b).clamp(0, 1),
    "SCALED_TANH": lambda x, a, b: a * torch.tanh(b * x),
    "THRESHOLDED_RELU": lambda x, a, b: torch.where(x > a, x, torch.zeros_like(x)),
    "GELU_ERF": lambda x, a, b: torch.nn.functional.gelu(x),
    "GELU_TANH": lambda x, a, b: torch.nn.functional.gelu(x, approximate="tanh"),
}

_UNARY: dict[str, Callable[[T], T]] = {
    "EXP": torch.exp,
    "LOG": torch.log,
    "SQRT": torch.sqrt,
    "RECIP": torch.reciprocal,
    "ABS": torch.abs,
    "NEG": torch.neg,
    "SIN": torch.sin,
    "COS": torch.cos,
    "TAN": torch.tan,
    "SINH": torch.sinh,
    "COSH": torch.cosh,
    "ASIN": torch.asin,
    "ACOS": torch.acos,
    "ATAN": torch.atan,
    "ASINH": torch.asinh,
    "ACOSH": torch.acosh,
    "ATANH": torch.atanh,
    "CEIL": torch.ceil,
    "FLOOR": torch.floor,
    "ERF": torch.erf,
    "NOT": torch.logical_not,
    "SIGN": torch.sign,
    "ROUND": torch.round,
    "ISINF": torch.isinf,
    "ISNAN": torch.isnan,
}

_ELEMENTWISE: dict[str, Callable[[T, T], T]] = {
    "SUM": torch.add,
    "PROD": torch.mul,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
    "SUB": torch.sub,
    "DIV": lambda a, b: a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc"),
    "POW": torch.pow,
    "FLOOR_DIV": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "AND": torch.logical_and,
    "OR": torch.logical_or,
    "XOR": torch.logical_xor,
    "EQUAL": torch.eq,
    "GREATER": torch.gt,
    "LESS": torch.lt,
}


@kernel
def activation(input: T, type: str, alpha: float = math.nan, beta: float = math.nan) -> T:
    return _ACTIVATIONS[type](input, alpha, beta)


@kernel
def unary(input: T, op: str) -> T:
    return _UNARY[op](input)


@kernel
def elementwise(input1: T, input2: T, op: str) -> T:
    return _ELEMENTWISE[op](input1, input2)


@kernel
def select(condition: T, then_input: T, else_input: T) -> T:
    return torch.where(condition, then_input, else_input)


@kernel
def cast(input: T, to_type: str) -> T:
    return input.to(torch_dtype(to_type))


@kernel
def identity(input: T) -> T:
    return input


@kernel
def parametric_relu(input: T, slopes: T) -> T:
    return torch.where(input >= 0, input, slopes * input)


@kernel
def scale_nd(
    input: T,
    mode: str,
    channel_axis: int,
    shift: T | None = None,
    scale: T | None = None,
    power: T | None = None,
) -> T:
    shape = {
        "UNIFORM": [],
        "CHANNEL": [-1 if axis == channel_axis else 1 for axis in range(input.dim())],
        "ELEMENTWISE": list(input.shape[1:]),
    }[mode]
    if scale is not None:
        input = input * scale.reshape(shape)
    if shift is not None:
        input = input + shift.reshape(shape)
    return input if power is None else torch.pow(input, power.reshape(shape))


@kernel
def cumulative(input: T, op: str, axis: int, exclusive: bool, reverse: bool) -> T:
    ordered = input.flip(axis) if reverse else input
    total = ordered.cumsum(axis, dtype=input.dtype)
    if exclusive:
        zero = torch.zeros_like(total.narrow(axis, 0, min(1, total.shape[axis])))
        kept = total.narrow(axis, 0, max(total.shape[axis] - 1, 0))
        total = torch.cat([zero, kept], axis)
    return total.flip(axis) if reverse else total
