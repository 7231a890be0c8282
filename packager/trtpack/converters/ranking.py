# SPDX-License-Identifier: Apache-2.0
"""An order found by comparing every element with every other, where TensorRT's top-k does not go.

Top-k takes a constant number of at most 3840 elements. Comparing takes the square of the length in
steps, and keeps equal elements in their order.
"""

from __future__ import annotations

import math

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

from .context import Context
from .refusals import Refused

MOST_COMPARISONS = 1 << 28
"""As many comparisons of pairs as one sort may take."""


def too_many_comparisons(x: Tensor, axis: int) -> str | None:
    """Refuses sizes whose comparisons take too long; dynamic ones count as 1."""
    length = x.shape[axis]
    count = math.prod(size for size in (*x.shape, length) if isinstance(size, int))
    if count <= MOST_COMPARISONS:
        return None
    return (
        f"TensorRT puts at most 3840 elements in order, not {length}, and comparing them with one "
        f"another takes {count} steps"
    )


def unless_too_many(ctx: Context, x: Tensor, axis: int) -> None:
    """Refuses a size that only the data tells, and that may be too large to compare."""
    length, count = x.shape[axis], ctx.bounds.at_most(dims.product((*x.shape, x.shape[axis])))
    if ctx.bounds.only_data_tells(length) and count > MOST_COMPARISONS:
        raise Refused(
            "TensorRT puts at most 3840 elements in order, and comparing as many as the data may "
            f"say takes up to {count:.0f} steps; torch._check their number"
        )


def ordered_by_comparing(
    ctx: Context, x: Tensor, k: Dim, axis: int, *, largest: bool
) -> tuple[Tensor, Tensor]:
    """The first ``k`` elements along ``axis`` in order, and their indices as INT64."""
    ranks = ranked_by_comparing(ctx, x, axis, largest=largest)
    steps = tuple(int(i == axis) for i in range(x.rank))
    places = ctx.ramp(x.shape, steps)
    order = ctx.add(
        "scatter", {"data": places, "indices": ranks, "updates": places}, mode="ELEMENT", axis=axis
    )
    first = tuple(k if i == axis else size for i, size in enumerate(x.shape))
    if first != x.shape:
        order = ctx.slice(order, (0,) * x.rank, first)
    return ctx.gather(x, order, axis, mode="ELEMENT"), order


def ranked_by_comparing(ctx: Context, x: Tensor, axis: int, *, largest: bool) -> Tensor:
    """How many elements along ``axis`` come before each one, as INT32; of equal ones, the first
    comes first."""
    length = x.shape[axis]
    before, behind = x.shape[:axis], x.shape[axis + 1 :]
    this = ctx.reshape(x, (*before, length, 1, *behind))
    other = ctx.reshape(x, (*before, 1, length, *behind))
    first = ctx.elementwise("GREATER" if largest else "LESS", other, this)
    alike = ctx.elementwise("EQUAL", other, this)
    ones = (1,) * len(behind)
    distance = ctx.ramp((length, length, *ones), (1, -1, *(0,) * len(behind)))
    earlier = ctx.elementwise("GREATER", distance, 0)
    comes_first = ctx.elementwise("OR", first, ctx.elementwise("AND", alike, earlier))
    return ctx.reduce("SUM", ctx.cast(comes_first, "INT32"), axis + 1, keep_dims=False)
