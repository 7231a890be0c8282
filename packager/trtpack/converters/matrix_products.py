# SPDX-License-Identifier: Apache-2.0
"""Linear layers and products of vectors and matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .einsum import Factor, sum_of_products
from .promotion import needs_wider_integers
from .refusals import unless_floats
from .registry import converter

aten = torch.ops.aten


@converter(aten.linear.default, when=needs_wider_integers)
def linear(ctx: Context, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor

    Leading dims are rows of one matrix: a batch of products with the same weight is many small
    products for TensorRT, which read the weight each time.

    Shapes: (..., in) with weight (out, in) or (in,); any dim may be dynamic.
    Dtypes: float16, bfloat16, float32; int32, int64 as in ``matmul``.
    Source: torch.nn.functional.linear.
    """
    if weight.rank == 1 or input.rank == 1 or input.dtype not in FLOATS:
        transposed = ctx.permute(weight, tuple(reversed(range(weight.rank))))
        product = matmul(ctx, input, transposed)
        return product if bias is None else ctx.elementwise("SUM", product, bias)
    *leading, width = input.shape
    is_batch = any(size != 1 for size in leading[:-1])
    rows = ctx.reshape(input, (math.prod(leading), width)) if is_batch else input
    product = ctx.matmul(rows, weight, transpose_b=True)
    if bias is not None:
        product = ctx.elementwise("SUM", product, bias)
    return ctx.reshape(product, (*leading, weight.shape[0]))


@converter(aten.mm.default, aten.bmm.default)
def mm(ctx: Context, self: Tensor, mat2: Tensor) -> Tensor:
    """mm(Tensor self, Tensor mat2) -> Tensor"""
    return matmul(ctx, self, mat2)


@converter(aten.mv.default)
def mv(ctx: Context, self: Tensor, vec: Tensor) -> Tensor:
    """mv(Tensor self, Tensor vec) -> Tensor"""
    return matmul(ctx, self, vec)


@converter(aten.dot.default)
def dot(ctx: Context, self: Tensor, tensor: Tensor) -> Tensor:
    """dot(Tensor self, Tensor tensor) -> Tensor"""
    return matmul(ctx, self, tensor)


@converter(aten.matmul.default)
def matmul(ctx: Context, self: Tensor, other: Tensor) -> Tensor:
    """matmul(Tensor self, Tensor other) -> Tensor

    TensorRT multiplies floats only: whole numbers are multiplied and summed element by element.

    Shapes: any two ranks; a single dim is a vector; batch dims broadcast and may be dynamic.
    Dtypes: float16, bfloat16, float32, int32, int64.
    Source: torch.matmul.
    """
    if self.dtype not in FLOATS:
        return _whole_numbers(ctx, self, other)
    if self.rank > 1 and other.rank > 1:
        return ctx.matmul(self, other)
    batch = max(self.rank, other.rank) - 2  # of the matrix; below 0 for two vectors
    a = self if self.rank > 1 or batch < 0 else ctx.unsqueeze_to(self, batch + 1)
    b = other if other.rank > 1 or batch < 0 else ctx.unsqueeze_to(other, batch + 1)
    return ctx.add(
        "matrix_multiply",
        {"input0": a, "input1": b},
        op0="NONE" if self.rank > 1 else "VECTOR",
        op1="NONE" if other.rank > 1 else "VECTOR",
    )


@converter(aten.addmm.default)
def addmm(
    ctx: Context, self: Tensor, mat1: Tensor, mat2: Tensor, beta: float, alpha: float
) -> Tensor:
    """addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor

    Source: torch.addmm: beta * self + alpha * (mat1 @ mat2); beta 0 ignores ``self``.
    """
    product = _times(ctx, matmul(ctx, mat1, mat2), alpha)
    return product if beta == 0 else ctx.elementwise("SUM", product, _times(ctx, self, beta))


@converter(aten.baddbmm.default)
def baddbmm(
    ctx: Context, self: Tensor, batch1: Tensor, batch2: Tensor, beta: float, alpha: float
) -> Tensor:
    """baddbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) ->
    Tensor
    """
    return addmm(ctx, self, batch1, batch2, beta, alpha)


@converter(aten.addmv.default)
def addmv(
    ctx: Context, self: Tensor, mat: Tensor, vec: Tensor, beta: float, alpha: float
) -> Tensor:
    """addmv(Tensor self, Tensor mat, Tensor vec, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    return addmm(ctx, self, mat, vec, beta, alpha)


@converter(aten.addbmm.default)
def addbmm(
    ctx: Context, self: Tensor, batch1: Tensor, batch2: Tensor, beta: float, alpha: float
) -> Tensor:
    """addbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor

    The products of a batch, summed.
    """
    total = ctx.reduce("SUM", matmul(ctx, batch1, batch2), 0, keep_dims=False)
    product = _times(ctx, total, alpha)
    return product if beta == 0 else ctx.elementwise("SUM", product, _times(ctx, self, beta))


@converter(aten._trilinear.default, when=unless_floats)
def trilinear(
    ctx: Context,
    i1: Tensor,
    i2: Tensor,
    i3: Tensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Tensor:
    """_trilinear(Tensor i1, Tensor i2, Tensor i3, int[] expand1, int[] expand2, int[] expand3,
    int[] sumdim, int unroll_dim=1) -> Tensor

    ``nn.Bilinear`` arrives here: the sum over ``sumdim`` of a product of three, each of which lacks
    the dims of its ``expand``.
    """
    dims = range(i1.rank + len(expand1))
    first, second, third = (
        "".join(chr(ord("a") + d) for d in dims if d not in lacking)
        for lacking in (expand1, expand2, expand3)
    )
    wanted = "".join(chr(ord("a") + d) for d in dims if d not in sumdim)
    kept = "".join(sorted({*first, *second} & {*third, *wanted}))
    pair = sum_of_products(ctx, [Factor(i1, (*first,)), Factor(i2, (*second,))], kept)
    return sum_of_products(ctx, [Factor(pair, (*kept,)), Factor(i3, (*third,))], wanted)


def _times(ctx: Context, x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else ctx.elementwise("PROD", x, factor)


def _whole_numbers(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """(..., m, k, 1) * (..., 1, k, n), summed over k."""
    if b.rank > 1:
        a = ctx.reshape(a, (*a.shape, 1))
        b = ctx.reshape(b, (*b.shape[:-2], 1, *b.shape[-2:])) if a.rank > 2 else b
    product = ctx.elementwise("PROD", a, b)
    return ctx.reduce("SUM", product, -2 if b.rank > 1 else -1, keep_dims=False)
