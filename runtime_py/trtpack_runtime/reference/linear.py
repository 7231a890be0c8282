# SPDX-License-Identifier: Apache-2.0
"""Products, reductions, normalisation and attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .registry import kernel

T = torch.Tensor


@kernel
def matrix_multiply(input0: T, input1: T, op0: str, op1: str) -> T:
    a = input0.unsqueeze(-2) if op0 == "VECTOR" else _matrix(input0, op0)
    b = input1.unsqueeze(-1) if op1 == "VECTOR" else _matrix(input1, op1)
    answer = torch.matmul(a, b)
    if op1 == "VECTOR":
        answer = answer.squeeze(-1)
    if op0 == "VECTOR":
        answer = answer.squeeze(-1 if op1 == "VECTOR" else -2)
    return answer


@kernel
def einsum(inputs: Sequence[T], equation: str) -> T:
    answer = torch.einsum(equation, *inputs)
    assert isinstance(answer, torch.Tensor)
    return answer


@kernel
def softmax(input: T, axes: tuple[int, ...]) -> T:
    return torch.softmax(input, axes[0])


@kernel
def reduce(input: T, op: str, axes: tuple[int, ...], keep_dims: bool) -> T:
    match op:
        case "SUM":
            return input.sum(axes, keepdim=keep_dims, dtype=input.dtype)
        case "AVG":
            return input.mean(axes, keepdim=keep_dims)
        case "MAX":
            return input.amax(axes, keepdim=keep_dims)
        case "MIN":
            return input.amin(axes, keepdim=keep_dims)
    for axis in sorted(axes, reverse=True):
        input = input.prod(axis, keepdim=keep_dims, dtype=input.dtype)
    return input


@kernel
def normalization(
    input: T, scale: T, bias: T, axes: tuple[int, ...], epsilon: float, num_groups: int = 1
) -> T:
    if num_groups > 1:
        repeats = input.shape[1] // num_groups
        scale, bias = (
            t.repeat_interleave(repeats, 1) if t.shape[1] > 1 else t for t in (scale, bias)
        )
    return normalization_v2(input, scale, bias, axes, epsilon, num_groups)


@kernel
def normalization_v2(
    input: T, scale: T, bias: T, axes: tuple[int, ...], epsilon: float, num_groups: int = 1
) -> T:
    x = input.float()
    if num_groups > 1:
        x = x.unflatten(1, (num_groups, -1))
        axes = tuple(range(2, x.dim()))
    mean = x.mean(axes, keepdim=True)
    centered = x - mean
    variance = (centered * centered).mean(axes, keepdim=True)
    normal = (centered * torch.rsqrt(variance + epsilon)).reshape(input.shape)
    return (normal * scale.float() + bias.float()).to(input.dtype)


@kernel
def attention(
    query: T,
    key: T,
    value: T,
    normalization_op: str,
    causal: bool,
    decomposable: bool,
    mask: T | None = None,
) -> T:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
    scores = torch.matmul(query, key.transpose(-1, -2))
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    softmax_op = normalization_op == "SOFTMAX"
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf if softmax_op else 0)
    elif mask is not None:
        scores = scores + mask
    return torch.matmul(torch.softmax(scores, -1) if softmax_op else scores, value)


@kernel
def rotary_embedding(input: T, cos: T, sin: T, interleaved: bool) -> T:
    dim = -1 if interleaved else -2
    first, second = input.unflatten(-1, (-1, 2) if interleaved else (2, -1)).unbind(dim)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.stack(turned, dim).flatten(-2)


def _matrix(tensor: T, op: str) -> T:
    return tensor.transpose(-1, -2) if op == "TRANSPOSE" else tensor
