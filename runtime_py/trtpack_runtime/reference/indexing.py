# SPDX-License-Identifier: Apache-2.0
"""Layers that move, pick or make elements."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .pointwise import torch_dtype
from .registry import kernel

T = torch.Tensor
Ints = tuple[int, ...]


@kernel
def topk(input: T, op: str, k: int, axes: Ints, indices_type: str = "INT32") -> tuple[T, T]:
    # unlike torch.topk, the first of equal elements comes first
    values, indices = torch.sort(input, dim=axes[0], descending=op == "MAX", stable=True)
    indices = indices.narrow(axes[0], 0, k).to(torch_dtype(indices_type))
    return values.narrow(axes[0], 0, k), indices


@kernel
def gather(input: T, indices: T, mode: str, axis: int, num_elementwise_dims: int = 0) -> T:
    if mode == "ND":
        return _gather_nd(input, indices, num_elementwise_dims)
    size = input.shape[axis]
    index, inside = _wrapped(indices, size)
    if mode == "ELEMENT":
        return torch.where(inside, torch.gather(input, axis, index), _zero(input))
    if num_elementwise_dims == 1:
        count = max(input.shape[0], index.shape[0])
        rows, picks = (t.expand(count, *t.shape[1:]) for t in (input, indices))
        return torch.stack([gather(x, i, mode, axis - 1) for x, i in zip(rows, picks, strict=True)])
    picked = input.index_select(axis, index.flatten())
    shape = (*input.shape[:axis], *indices.shape, *input.shape[axis + 1 :])
    if not bool(inside.all()):
        at = [-1 if i == axis else 1 for i in range(input.dim())]
        picked = torch.where(inside.reshape(at), picked, _zero(input))
    return picked.reshape(shape)


@kernel
def scatter(data: T, indices: T, updates: T, mode: str, axis: int | None = None) -> T:
    if mode == "ELEMENT":
        assert axis is not None
        return data.scatter(axis, _wrapped(indices, data.shape[axis])[0], updates)
    index = tuple(_wrapped(part, data.shape[i])[0] for i, part in enumerate(indices.unbind(-1)))
    return data.index_put(index, updates)


@kernel
def shuffle(
    input: T,
    first_transpose: Ints | None = None,
    reshape_dims: Ints | None = None,
    second_transpose: Ints | None = None,
) -> T:
    if first_transpose is not None:
        input = input.permute(first_transpose)
    if reshape_dims is not None:
        input = input.reshape(reshape_dims)
    return input if second_transpose is None else input.permute(second_transpose)


@kernel
def slice(input: T, start: Ints, shape: Ints, stride: Ints, mode: str, fill: T | None = None) -> T:
    outside = []
    for axis, (first, count, step) in enumerate(zip(start, shape, stride, strict=True)):
        size = input.shape[axis]
        if count and step == 0 and 0 <= first < size:
            input = input.narrow(axis, first, 1).expand(
                *input.shape[:axis], count, *input.shape[axis + 1 :]
            )
        elif count and step > 0 and first >= 0 and first + (count - 1) * step < size:
            input = input.narrow(axis, first, (count - 1) * step + 1)
            input = input.unfold(axis, 1, step).squeeze(-1)
        else:
            index = torch.arange(count, device=input.device) * step + first
            inside = (index >= 0) & (index < size)
            if mode == "FILL":
                outside.append((axis, ~inside))
            input = input.index_select(axis, _inside(index, size, mode))
    for axis, where in outside:
        at = [-1 if i == axis else 1 for i in range(input.dim())]
        value = _zero(input) if fill is None else fill.reshape(())
        input = torch.where(where.reshape(at), value, input)
    return input


@kernel
def concatenation(inputs: Sequence[T], axis: int) -> T:
    return torch.cat(list(inputs), axis)


@kernel
def fill(
    shape: Ints,
    op: str,
    output_type: str,
    device: torch.device,
    alpha: float | None = None,
    beta: tuple[float, ...] | None = None,
    alpha_tensor: T | None = None,
    beta_tensor: T | None = None,
) -> T:
    dtype = torch_dtype(output_type)
    start = (
        torch.tensor(alpha, dtype=dtype, device=device) if alpha_tensor is None else alpha_tensor
    )
    steps = torch.tensor(beta, dtype=dtype, device=device) if beta_tensor is None else beta_tensor
    value = start.expand(shape)
    for axis, size in enumerate(shape):
        index = torch.arange(size, dtype=dtype, device=device) * steps[axis]
        value = value + index.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return value


@kernel
def one_hot(indices: T, values: T, depth: int, axis: int) -> T:
    classes = torch.arange(depth, device=indices.device)
    classes = classes.reshape([-1 if i == axis else 1 for i in range(indices.dim() + 1)])
    return torch.where(indices.unsqueeze(axis) == classes, values[1], values[0])


def _gather_nd(input: T, indices: T, batch: int) -> T:
    prefix = indices.shape[:-1]
    index: list[T] = [
        torch.arange(size, device=input.device).reshape(
            [-1 if i == axis else 1 for i in range(len(prefix))]
        )
        for axis, size in enumerate(input.shape[:batch])
    ]
    inside = torch.ones(prefix, dtype=torch.bool, device=input.device)
    for offset, part in enumerate(indices.unbind(-1)):
        wrapped, fits = _wrapped(part, input.shape[batch + offset])
        index.append(wrapped)
        inside = inside & fits
    picked = input[tuple(index)]
    return torch.where(
        inside.reshape(prefix + (1,) * (picked.dim() - len(prefix))), picked, _zero(input)
    )


def _wrapped(indices: T, size: int) -> tuple[T, T]:
    """Indices counted from 0 and in bounds, and which of them were; outside reads are zero."""
    index = indices.long()
    index = torch.where(index < 0, index + size, index)
    inside = (index >= 0) & (index < size)
    return index.clamp(0, max(size - 1, 0)), inside


def _inside(index: T, size: int, mode: str) -> T:
    if mode == "WRAP":
        return index % size
    if mode == "REFLECT" and size > 1:
        index = index % (2 * (size - 1))
        return torch.minimum(index, 2 * (size - 1) - index)
    return index.clamp(0, size - 1)


def _zero(like: T) -> T:
    return torch.zeros((), dtype=like.dtype, device=like.device)
