# SPDX-License-Identifier: Apache-2.0
"""Example inputs of a model at other batches than its own."""

from __future__ import annotations

from typing import Any

import torch

SMALLEST = 1


def batch_sizes(args: tuple[Any, ...], shapes: tuple[Any, ...]) -> list[int]:
    """Two batches that a model with a dynamic batch is evaluated at, neither its own."""
    own = next(
        arg.shape[axis] for arg, dims in zip(args, shapes, strict=True) for axis in dims or ()
    )
    return [SMALLEST, own + 1]


def at_batch(args: tuple[Any, ...], shapes: tuple[Any, ...], size: int) -> tuple[Any, ...]:
    """The inputs with ``size`` entries along every dynamic dim, repeated where there are fewer.

    Repeated entries of float tensors are scaled, so that no two are the same.
    """
    return tuple(_resized(arg, dims or {}, size) for arg, dims in zip(args, shapes, strict=True))


def _resized(arg: torch.Tensor, dims: Any, size: int) -> torch.Tensor:
    for axis in dims:
        have = arg.shape[axis]
        arg = arg.index_select(axis, torch.arange(size) % have)
        if arg.is_floating_point() and size > have:
            scale = torch.ones(size)
            scale[have:] = 0.9
            arg = arg * scale.to(arg).reshape([-1 if d == axis else 1 for d in range(arg.dim())])
    return arg
