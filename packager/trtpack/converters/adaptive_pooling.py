# SPDX-License-Identifier: Apache-2.0
"""Pooling to a given output size."""

from __future__ import annotations

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
from .window_tables import averaging, elements, whole

aten = torch.ops.aten


@converter(
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool3d.default,
    when=unless_floats,
)
def adaptive_avg_pool(ctx: Context, self: Tensor, output_size: Sequence[Dim]) -> Tensor:
    """adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) -> Tensor

    To one element it is a mean, to a divisor of the size a pooling, else a product with the matrix
    of the windows' shares along each dim.

    Shapes: with or without a batch dim; all sizes may be dynamic.
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
            out = ctx.product_along(out, averaging(ctx, self.dtype, have, want), axis)
    return out


@converter(
    aten.adaptive_max_pool1d.default,
    aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default,
    when=unless_floats,
)
def adaptive_max_pool(
    ctx: Context, self: Tensor, output_size: Sequence[Dim]
) -> tuple[Tensor, Tensor]:
    """adaptive_max_pool2d(Tensor self, int[2] output_size) -> (Tensor, Tensor)

    The layers of the indices fall away where nothing uses them.

    Shapes: with or without a batch dim; all sizes may be dynamic.
    """
    n = len(output_size)
    lead, sizes = self.shape[:-n], self.shape[-n:]
    if all(size == 1 for size in output_size):
        flat = ctx.reshape(self, (*(1,) * (2 - len(lead)), *lead, dims.product(sizes)))
        _, best = ranked(ctx, "MAX", flat, 1, 2)
        values = ctx.reduce("MAX", self, range(-n, 0), keep_dims=True)
        return values, ctx.reshape(ctx.cast(best, "INT64"), ctx.result.shape)
    return _max_by_tables(ctx, self, sizes, ctx.result.shape[-n:])


def _max_by_tables(
    ctx: Context, x: Tensor, sizes: tuple[Dim, ...], counts: tuple[Dim, ...]
) -> tuple[Tensor, Tensor]:
    """Every window gathered along each dim; the index is looked up in the windows' places.

    Batch and channels are one dimension, since a gather of TensorRT 8.6 answers at most seven.
    """
    n, lead = len(sizes), (dims.product(x.shape[: x.rank - len(sizes)]),)
    inside, places = ctx.reshape(x, (*lead, *sizes)), ctx.scalar(0, "INT64", 2 * n)
    for i, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        table = elements(ctx, size, count)
        inside = ctx.gather(inside, table, len(lead) + 2 * i)
        along = (*(1,) * 2 * i, *table.shape, *(1,) * 2 * (n - i - 1))
        step = ctx.size(dims.product(sizes[i + 1 :]), "INT64", 2)
        steps = whole(ctx, "PROD", table, step)
        places = ctx.elementwise("SUM", places, ctx.reshape(steps, along))
    order = [*range(0, 2 * n, 2), *range(1, 2 * n, 2)]
    windows, longest = dims.product(counts), dims.product(places.shape[1::2])
    flat = ctx.add(
        "shuffle",
        {"input": inside},
        first_transpose=(*range(len(lead)), *(len(lead) + axis for axis in order)),
        reshape_dims=(*lead, windows, longest),
    )
    _, best = ranked(ctx, "MAX", flat, 1, flat.rank - 1)
    row = ctx.ramp((windows, 1), (longest, 0))
    found = ctx.reshape(ctx.permute(places, order), (windows * longest,))
    best = ctx.elementwise("SUM", ctx.cast(best, "INT64"), row)
    indices = ctx.gather(found, best, 0)
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
