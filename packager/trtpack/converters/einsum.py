# SPDX-License-Identifier: Apache-2.0
"""Sums of products in index notation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trtpack_runtime import dims
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor

from .context import Context
from .promotion import needs_wider_integers
from .refusals import Refused, first_reason
from .registry import converter
from .slicing import diagonal

aten = torch.ops.aten
MAX_RANK = 8


@dataclass(frozen=True)
class Factor:
    """A tensor with one label for each dim."""

    tensor: Tensor
    labels: tuple[str, ...]


def _wide(*, tensors: Sequence[Tensor], **_: object) -> str | None:
    return first_reason(*(needs_wider_integers(tensor=t) for t in tensors))


@converter(aten.einsum.default, when=_wide)
def einsum(ctx: Context, equation: str, tensors: Sequence[Tensor], path: object) -> Tensor:
    """einsum(str equation, Tensor[] tensors, *, int[]? path=None) -> Tensor

    TensorRT's einsum takes two tensors and lower-case letters, no ellipsis and no diagonal: those
    are written out, more tensors are multiplied one after the other.

    Whole numbers, which it does not take, are multiplied and summed element by element. Before
    TensorRT 10 it rounds float32 to float16 in an engine that has both (measured on 8.6): products
    of matrices take its place.

    Shapes: any ranks; labels may have dynamic sizes. Whole numbers: at most 8 labels in a product.
    Dtypes: float16, bfloat16, float32, int32, int64.
    Source: torch.einsum; IEinsumLayer.
    """
    terms, wanted = _parsed(equation, [t.rank for t in tensors])
    sizes = [
        dict(zip(labels, t.shape, strict=True)) for labels, t in zip(terms, tensors, strict=True)
    ]
    broadcast = {n for each in sizes for n in each if any(s.get(n, 1) != 1 for s in sizes)}
    dtype = ctx.result.dtype  # int64 where PyTorch sums int32
    factors = [
        _distinct(ctx, _without_ones(ctx, Factor(ctx.cast(t, dtype), labels), broadcast))
        for t, labels in zip(tensors, terms, strict=True)
    ]
    left = factors[0]
    for i, right in enumerate(factors[1:], 2):
        later = {*wanted, *(n for f in factors[i:] for n in f.labels)}
        if i == len(factors):
            break
        kept = tuple(dict.fromkeys(n for n in (*left.labels, *right.labels) if n in later))
        left = Factor(sum_of_products(ctx, [left, right], kept), kept)
    last = [left, *factors[1:][-1:]]
    return sum_of_products(ctx, last, wanted)


def sum_of_products(ctx: Context, factors: Sequence[Factor], wanted: Sequence[str]) -> Tensor:
    """One tensor or the product of two, with the labels ``wanted``, summed over all others."""
    if factors[0].tensor.dtype not in FLOATS:
        return _by_elements(ctx, factors, wanted)
    if not ctx.has("10.0"):
        return _matrix_product(ctx, [_summed(ctx, f, factors, wanted) for f in factors], wanted)
    names = dict.fromkeys(n for f in factors for n in f.labels)
    letter = {n: chr(ord("a") + i) for i, n in enumerate(names)}
    terms = [
        "".join(letter[n] for n in labels) for labels in (*(f.labels for f in factors), wanted)
    ]
    equation = ",".join(terms[:-1]) + "->" + terms[-1]
    return ctx.add("einsum", {"inputs": tuple(f.tensor for f in factors)}, equation=equation)


def _matrix_product(ctx: Context, factors: Sequence[Factor], wanted: Sequence[str]) -> Tensor:
    """The same by a product of matrices, as torch.einsum has it; every label is wanted or shared.

    Labels of both tensors that stay are the batch, the others of the first are rows, those of the
    second columns.
    """
    left, right = factors[0], factors[-1]
    inner = [n for n in left.labels if n not in wanted]
    if not inner:
        return _by_elements(ctx, factors, wanted)
    batch = [n for n in left.labels if n in right.labels and n in wanted]
    rows = [n for n in left.labels if n not in right.labels]
    columns = [n for n in right.labels if n not in left.labels]
    a, b = _matrices(ctx, left, batch, rows, inner), _matrices(ctx, right, batch, inner, columns)
    sizes = {n: s for f in factors for n, s in zip(f.labels, f.tensor.shape, strict=True)}
    made = [*batch, *rows, *columns]
    product = ctx.reshape(ctx.matmul(a, b), [sizes[n] for n in made])
    return ctx.permute(product, [made.index(n) for n in wanted])


def _matrices(ctx: Context, factor: Factor, *groups: Sequence[str]) -> Tensor:
    """A tensor with one dim for each group of its labels."""
    sizes = dict(zip(factor.labels, factor.tensor.shape, strict=True))
    x = ctx.permute(factor.tensor, [factor.labels.index(n) for group in groups for n in group])
    return ctx.reshape(x, [dims.product(tuple(sizes[n] for n in group)) for group in groups])


def _summed(
    ctx: Context, factor: Factor, factors: Sequence[Factor], wanted: Sequence[str]
) -> Factor:
    """A tensor summed over the labels that stand nowhere else."""
    kept = {*wanted, *(n for f in factors if f is not factor for n in f.labels)}
    alone = [i for i, n in enumerate(factor.labels) if n not in kept]
    if not alone:
        return factor
    x = ctx.reduce("SUM", factor.tensor, alone, keep_dims=False)
    return Factor(x, tuple(n for n in factor.labels if n in kept))


def _by_elements(ctx: Context, factors: Sequence[Factor], wanted: Sequence[str]) -> Tensor:
    """The same element by element, the labels that are summed over behind all others."""
    names = list(dict.fromkeys((*wanted, *(n for f in factors for n in f.labels))))
    if len(names) > MAX_RANK:
        raise Refused(f"a product of whole numbers has {len(names)} labels, beyond {MAX_RANK}")
    sides = []
    for factor in factors:
        order = sorted(
            range(factor.tensor.rank), key=[names.index(n) for n in factor.labels].__getitem__
        )
        sizes = dict(zip(factor.labels, factor.tensor.shape, strict=True))
        shape = [sizes.get(n, 1) for n in names]
        sides.append(ctx.reshape(ctx.permute(factor.tensor, order), shape))
    product = sides[0] if len(sides) == 1 else ctx.elementwise("PROD", *sides)
    summed = range(len(wanted), len(names))
    return ctx.reduce("SUM", product, summed, keep_dims=False) if summed else product


def _parsed(equation: str, ranks: Sequence[int]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """The labels of every tensor and of the answer; an ellipsis becomes numbered labels."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    hidden = [
        rank - len(t.replace("...", "")) if "..." in t else 0
        for t, rank in zip(terms, ranks, strict=True)
    ]
    width = max(hidden)

    def labels(term: str, count: int) -> tuple[str, ...]:
        before, dots, behind = term.partition("...")
        numbered = [str(width - i) for i in range(count, 0, -1)] if dots else []
        return (*before, *numbered, *behind)

    if not arrow:
        letters = [c for c in left if c.isalpha()]
        right = ("..." if width else "") + "".join(
            sorted(c for c in letters if letters.count(c) == 1)
        )
    return [labels(t, n) for t, n in zip(terms, hidden, strict=True)], labels(right, width)


def _without_ones(ctx: Context, factor: Factor, broadcast: set[str]) -> Factor:
    """Dims of size 1 left out where another tensor has more under the same label."""
    pairs = list(zip(factor.labels, factor.tensor.shape, strict=True))
    kept = [(n, size) for n, size in pairs if size != 1 or n not in broadcast]
    tensor = ctx.reshape(factor.tensor, [size for _, size in kept])
    return Factor(tensor, tuple(n for n, _ in kept))


def _distinct(ctx: Context, factor: Factor) -> Factor:
    """A label that stands twice is a diagonal."""
    x, labels = factor.tensor, factor.labels
    while repeated := next((n for n in labels if labels.count(n) > 1), None):
        first = labels.index(repeated)
        second = labels.index(repeated, first + 1)
        x = diagonal(ctx, x, 0, first, second)
        labels = (*(n for i, n in enumerate(labels) if i not in (first, second)), repeated)
    return Factor(x, labels)
