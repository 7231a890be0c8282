# SPDX-License-Identifier: Apache-2.0
"""Rules of products, reductions, normalisation and attention."""

from __future__ import annotations

from collections.abc import Sequence

from trtpack_runtime.dims import Dim
from trtpack_runtime.layers import FLOATS, NUMBERS
from trtpack_runtime.network import Tensor

from .rules import (
    Mismatch,
    Results,
    Shape,
    agree,
    broadcast,
    require,
    require_axis,
    require_broadcastable,
    require_rank,
    require_shape,
    require_type,
    rule,
)


@rule
def matrix_multiply(input0: Tensor, input1: Tensor, op0: str, op1: str) -> Results:
    batch0, rows, inner0 = _matrix("input0", input0, op0, -1)
    batch1, columns, inner1 = _matrix("input1", input1, op1, -2)
    require(
        len(batch0) == len(batch1),
        f"operand input1: wanted the batch rank of {input0}, got {input1}",
    )
    require(
        agree(inner0, inner1) is not None,
        f"operand input1: wanted an inner size of {inner0} as in {input0}, got {input1} ({op1})",
    )
    shape: list[Dim] = []
    for a, b in zip(batch0, batch1, strict=True):
        size = broadcast(a, b)
        if size is None:
            raise Mismatch(f"operand input1: {input1} does not broadcast with {input0}")
        shape.append(size)
    return [(input0.dtype, (*shape, *rows, *columns))]


@rule
def einsum(inputs: Sequence[Tensor], equation: str) -> Results:
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    require(
        len(terms) == len(inputs), f"attribute equation: {equation!r} is for {len(terms)} inputs"
    )
    sizes: dict[str, Dim] = {}
    for term, tensor in zip(terms, inputs, strict=True):
        require(
            (len(term) == tensor.rank and term.isalpha() and term.islower()) or not term + right,
            f"attribute equation: {term!r} in {equation!r} is not for {tensor}",
        )
        require(len(set(term)) == len(term), f"attribute equation: {term!r} repeats a letter")
        require(tensor.dtype == inputs[0].dtype, f"operand inputs: {tensor} has another type")
        for letter, size in zip(term, tensor.shape, strict=True):
            known = agree(sizes.get(letter, size), size)
            if known is None:
                raise Mismatch(f"operand inputs: {letter!r} is {sizes[letter]} and {size}")
            sizes[letter] = known
    if not arrow:
        right = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    require(
        set(right) <= set(sizes) and len(set(right)) == len(right),
        f"attribute equation: {right!r} in {equation!r} is no output",
    )
    return [(inputs[0].dtype, tuple(sizes[letter] for letter in right))]


@rule
def softmax(input: Tensor, axes: tuple[int, ...]) -> Results:
    require(input.rank >= 2, f"operand input: wanted rank 2 or more, got {input}")
    require(len(axes) == 1, f"attribute axes: wanted one axis, got {axes}")
    require_axis("axes", axes[0], input.rank)
    return [(input.dtype, input.shape)]


@rule
def reduce(input: Tensor, op: str, axes: tuple[int, ...], keep_dims: bool) -> Results:
    require_type("input", input, FLOATS if op == "AVG" else NUMBERS)
    require(bool(axes), "attribute axes: wanted at least one axis")
    for axis in axes:
        require_axis("axes", axis, input.rank)
    if keep_dims:
        return [(input.dtype, tuple(1 if i in axes else d for i, d in enumerate(input.shape)))]
    return [(input.dtype, tuple(d for i, d in enumerate(input.shape) if i not in axes))]


@rule
def normalization(
    input: Tensor,
    scale: Tensor,
    bias: Tensor,
    axes: tuple[int, ...],
    epsilon: float,
    num_groups: int = 1,
) -> Results:
    _normalized(input, axes, num_groups)
    shape = input.shape if num_groups == 1 else (input.shape[0], num_groups, *input.shape[2:])
    require_broadcastable("scale", scale, shape)
    require_shape("bias", bias, scale.shape)
    return [(input.dtype, input.shape)]


@rule
def normalization_v2(
    input: Tensor,
    scale: Tensor,
    bias: Tensor,
    axes: tuple[int, ...],
    epsilon: float,
    num_groups: int = 1,
) -> Results:
    _normalized(input, axes, num_groups)
    require_broadcastable("scale", scale, input.shape)
    require_shape("bias", bias, scale.shape)
    return [(input.dtype, input.shape)]


@rule
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    normalization_op: str,
    causal: bool,
    decomposable: bool,
    mask: Tensor | None = None,
) -> Results:
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        require_rank(name, tensor, 4)
    batch, heads, length, _ = query.shape
    key_heads = key.shape[1]
    if isinstance(heads, int) and isinstance(key_heads, int):
        require(heads % key_heads == 0, f"operand key: wanted heads that divide {heads}, got {key}")
    require_shape("key", key, (batch, key_heads, key.shape[2], query.shape[3]))
    require_shape("value", value, key.shape)
    if mask is not None:
        require(not causal, "operand mask: not together with causal")
        require_type("mask", mask, frozenset({"BOOL", query.dtype}))
        require_broadcastable("mask", mask, (batch, heads, length, key.shape[2]))
    return [(query.dtype, query.shape)]


@rule
def rotary_embedding(input: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Results:
    require_rank("input", input, 4)
    batch, _, length, width = input.shape
    half = width // 2
    require(half * 2 == width, f"operand input: wanted a last dim of even size, got {input}")
    require_shape("cos", cos, (batch, length, half))
    require_shape("sin", sin, (batch, length, half))
    return [(input.dtype, input.shape)]


def _matrix(name: str, tensor: Tensor, op: str, inner_axis: int) -> tuple[Shape, Shape, Dim]:
    """Batch dims, the dim that stays (none for a vector), and the inner size.

    ``inner_axis`` counts from the end: where the product is taken when nothing is transposed.
    """
    if op == "VECTOR":
        require(tensor.rank >= 1, f"operand {name}: wanted a vector, got {tensor}")
        return tensor.shape[:-1], (), tensor.shape[-1]
    require(tensor.rank >= 2, f"operand {name}: wanted a matrix, got {tensor}")
    inner = inner_axis if op == "NONE" else -3 - inner_axis
    return tensor.shape[:-2], (tensor.shape[-3 - inner],), tensor.shape[inner]


def _normalized(input: Tensor, axes: tuple[int, ...], groups: int) -> None:
    require(input.rank >= 2, f"operand input: wanted rank 2 or more, got {input}")
    require(bool(axes), "attribute axes: wanted at least one axis")
    for axis in axes:
        require_axis("axes", axis, input.rank)
    if groups != 1:
        channels = input.shape[1]
        require(
            groups > 0 and (not isinstance(channels, int) or channels % groups == 0),
            f"attribute num_groups: {groups} does not divide the channels of {input}",
        )
        require(
            sorted(axes) == list(range(2, input.rank)),
            f"attribute axes: wanted every axis after the channels, got {axes}",
        )
