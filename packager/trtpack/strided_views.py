# SPDX-License-Identifier: Apache-2.0
"""``as_strided`` as indexing, while PyTorch still knows how its input lies in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true


def as_strided(
    self: torch.Tensor,
    size: Sequence[Any],
    stride: Sequence[Any],
    storage_offset: Any = None,
) -> Any:
    """The elements of a tensor that a strided view shows, picked by their places in memory.

    Sizes, strides and the offset are numbers or ``SymInt``. The view is left as it is (and so in
    PyTorch) where the tensor does not fill its memory, or where places may lie outside of it.
    """
    order, places = _order(self), _places(self, size, stride, storage_offset)
    if order is None or places is None:
        return NotImplemented
    return torch.ops.aten.index.Tensor(self.permute(order).reshape(-1), [places])


def as_strided_scatter(
    self: torch.Tensor,
    src: torch.Tensor,
    size: Sequence[Any],
    stride: Sequence[Any],
    storage_offset: Any = None,
) -> Any:
    """A tensor with ``src`` in the places in memory that a strided view of it shows.

    It is left as it is where ``as_strided`` leaves a view.
    """
    order, places = _order(self), _places(self, size, stride, storage_offset)
    if order is None or places is None:
        return NotImplemented
    whole = self.permute(order)
    row = torch.ops.aten.index_put.default(whole.reshape(-1), [places], src)
    return row.view(whole.shape).permute([order.index(axis) for axis in range(len(order))])


def _order(x: torch.Tensor) -> list[int] | None:
    """The axes from the widest stride to the narrowest; None where a tensor so permuted is not
    contiguous."""
    axes = list(range(x.dim()))
    if x.is_contiguous():
        return axes
    strides = x.stride()
    if not all(isinstance(stride, int) for stride in strides):
        return None
    axes.sort(key=lambda axis: -strides[axis])
    return axes if x.permute(axes).is_contiguous() else None


def _places(
    x: torch.Tensor, size: Sequence[Any], stride: Sequence[Any], storage_offset: Any
) -> torch.Tensor | None:
    """The indices into the elements as they lie in memory; None where they may lie outside."""
    start = 0 if storage_offset is None else storage_offset - x.storage_offset()
    last = start + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    inside = statically_known_true(start >= 0) and statically_known_true(last < x.numel())
    if not inside:
        return None
    places = torch.full((), start, dtype=torch.int64, device=x.device)
    for axis, (count, step) in enumerate(zip(size, stride, strict=True)):
        along: torch.Tensor = torch.arange(count, device=x.device) * step
        places = places + along.reshape([-1 if i == axis else 1 for i in range(len(size))])
    return places
