# SPDX-License-Identifier: Apache-2.0
"""Pooling to a given output size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context
from .pooling import Window, as_image, as_sizes, pool
from .refusals import unless_floats
from .registry import converter
from .sort import ranked

aten = torch.ops.aten


def _sizes_known(*, self: Tensor, output_size: Sequence[Dim], **_: object) -> str | None:
    n = len(output_size)
    for have, want in zip(self.shape[-n:], output_size, strict=True):
        if want not in (1, have) and not (isinstance(have, int) and isinstance(want, int)):
            return "its windows depend on a dynamic size"
    return unless_floats(self=self)


def _places_known(*, self: Tensor, output_size: Sequence[Dim], **_: object) -> str | None:
    known = dims.is_static(self.shape[-len(output_size) :])
    if not known and any(size != 1 for size in output_size):
        return "its windows depend on a dynamic size"
    return unless_floats(self=self)


@converter(
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool3d.default,
    when=_sizes_known,
)
def adaptive_avg_pool(ctx: Context, self: Tensor, output_size: Sequence[Dim]) -> Tensor:
    """adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) -> Tensor

    To one element it is a mean, to a divisor of the size a pooling, else a product with a constant
    matrix along each dim.

    Shapes: with or without a batch dim; a dynamic size can only be pooled to 1 or kept.
    Dtypes: float16, bfloat16, float32.
    Source: torch.nn.AdaptiveAvgPool2d: window i is floor(i*n/out) to ceil((i+1)*n/out).
    """
    n = len(output_size)
    if all(size == 1 for size in output_size):
        return ctx.reduce("AVG", self, range(-n, 0), keep_dims=True)
    if window := _even_window(as_sizes(self, n), as_sizes(ctx.result, n)):
        out = pool(ctx, "AVERAGE", as_image(ctx, self, n), window, window.padding)
        return ctx.reshape(out, ctx.result.shape)
    out = self
    for axis in range(-n, 0):
        have, want = self.shape[axis], ctx.result.shape[axis]
        if want == 1:
            out = ctx.reduce("AVG", out, axis, keep_dims=True)
        elif have != want:
            assert isinstance(have, int)
            assert isinstance(want, int)
            out = ctx.product_along(out, _averaging(ctx, self.dtype, have, want), axis)
    return out


@converter(
    aten.adaptive_max_pool1d.default,
    aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default,
    when=_places_known,
)
def adaptive_max_pool(
    ctx: Context, self: Tensor, output_size: Sequence[Dim]
) -> tuple[Tensor, Tensor]:
    """adaptive_max_pool2d(Tensor self, int[2] output_size) -> (Tensor, Tensor)

    The layers of the indices fall away where nothing uses them.

    Shapes: with or without a batch dim; dynamic sizes can only be pooled to one element.
    """
    n = len(output_size)
    lead, sizes = self.shape[:-n], self.shape[-n:]
    if all(size == 1 for size in output_size):
        flat = ctx.reshape(self, (*(1,) * (2 - len(lead)), *lead, dims.product(sizes)))
        _, best = ranked(ctx, "MAX", flat, 1, 2)
        values = ctx.reduce("MAX", self, range(-n, 0), keep_dims=True)
        return values, ctx.reshape(ctx.cast(best, "INT64"), ctx.result.shape)
    counts = tuple(output_size)
    assert dims.is_static(sizes)
    assert dims.is_static(counts)
    return _max_by_tables(ctx, self, sizes, counts)


def _max_by_tables(
    ctx: Context, x: Tensor, sizes: tuple[int, ...], counts: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Every window gathered along each dim; the index is looked up in the windows' places."""
    n, lead = len(sizes), x.shape[: x.rank - len(sizes)]
    places, inside = torch.arange(math.prod(sizes)).view(sizes), x
    for i, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        table = torch.tensor(_windows(size, count))
        inside = ctx.gather(inside, ctx.constant(table, f"windows_{i}"), len(lead) + 2 * i)
        shape = (*places.shape[: 2 * i], *table.shape, *places.shape[2 * i + 1 :])
        places = places.index_select(2 * i, table.view(-1)).view(shape)
    order = [*range(0, 2 * n, 2), *range(1, 2 * n, 2)]
    places = places.permute(order).reshape(math.prod(counts), -1)
    longest = places.shape[1]
    flat = ctx.add(
        "shuffle",
        {"input": inside},
        first_transpose=(*range(len(lead)), *(len(lead) + axis for axis in order)),
        reshape_dims=(*lead, math.prod(counts), longest),
    )
    _, best = ranked(ctx, "MAX", flat, 1, flat.rank - 1)
    row = ctx.ramp((math.prod(counts), 1), (longest, 0), dtype="INT32")
    found = ctx.constant(places.reshape(-1), "places")
    indices = ctx.gather(found, ctx.elementwise("SUM", best, row), 0)
    if window := _even_window(as_sizes(x, n), as_sizes(ctx.result, n)):
        values = pool(ctx, "MAX", as_image(ctx, x, n), window, window.padding)
    else:
        values = ctx.reduce("MAX", flat, -1, keep_dims=False)
    return ctx.reshape(values, ctx.result.shape), ctx.reshape(indices, ctx.result.shape)


def _even_window(have: Sequence[Dim], want: Sequence[Dim]) -> Window | None:
    """The window that pools ``have`` to ``want``, where every size is divisible."""
    kernel = []
    for size, count in zip(have, want, strict=True):
        if size == count:
            kernel.append(1)
        elif isinstance(size, int) and isinstance(count, int) and size % count == 0:
            kernel.append(size // count)
        else:
            return None
    n = len(kernel)
    return Window(tuple(kernel), tuple(kernel), (0,) * n, (1,) * n, False)


def _averaging(ctx: Context, dtype: str, size: int, count: int) -> Tensor:
    """A (size, count) matrix whose columns average the windows."""
    matrix = torch.zeros(size, count)
    for i, window in enumerate(_windows(size, count)):
        inside = sorted(set(window))
        matrix[inside, i] = 1 / len(inside)
    return ctx.cast(ctx.constant(matrix, f"averaging_{size}_to_{count}"), dtype)


def _windows(size: int, count: int) -> list[list[int]]:
    """The indices of every window; the last one is repeated where a window is shorter."""
    bounds = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
    longest = max(stop - start for start, stop in bounds)
    return [[min(start + j, stop - 1) for j in range(longest)] for start, stop in bounds]
