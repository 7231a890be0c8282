# SPDX-License-Identifier: Apache-2.0
"""Rules of the layers that move, pick or make elements."""

from __future__ import annotations

from collections.abc import Sequence

from trtpack_runtime.dims import Dim, Expr
from trtpack_runtime.layers import FLOATS, NUMBERS
from trtpack_runtime.network import Tensor

from .rules import (
    Mismatch,
    Results,
    Shape,
    agree,
    require,
    require_axis,
    require_rank,
    require_shape,
    require_sizes,
    require_volume,
    rule,
    text,
)

_LARGEST_K = 3840


@rule
def topk(
    input: Tensor, op: str, k: int, axes: tuple[int, ...], indices_type: str = "INT32"
) -> Results:
    require(input.rank >= 2, f"operand input: wanted rank 2 or more, got {input}")
    require(len(axes) == 1, f"attribute axes: wanted one axis, got {axes}")
    axis = axes[0]
    require_axis("axes", axis, input.rank)
    require(axis >= input.rank - 4, f"attribute axes: wanted one of the last four, got {axis}")
    size = input.shape[axis]
    limit = min(size, _LARGEST_K) if isinstance(size, int) else _LARGEST_K
    require(1 <= k <= limit, f"attribute k: wanted 1 to {limit}, got {k}")
    require(indices_type in ("INT32", "INT64"), f"attribute indices_type: got {indices_type}")
    shape = tuple(k if i == axis else d for i, d in enumerate(input.shape))
    return [(input.dtype, shape), (indices_type, shape)]


@rule
def gather(
    input: Tensor, indices: Tensor, mode: str, axis: int, num_elementwise_dims: int = 0
) -> Results:
    batch = num_elementwise_dims
    if mode == "ND":
        require(indices.rank >= 1, f"operand indices: wanted rank 1 or more, got {indices}")
        require(
            0 <= batch < min(input.rank, indices.rank),
            f"attribute num_elementwise_dims: got {batch} for {input} and {indices}",
        )
        depth = _depth("indices", indices, input.rank - batch)
        _require_same_prefix(input, indices, batch)
        return [
            (
                input.dtype,
                (*input.shape[:batch], *indices.shape[batch:-1], *input.shape[batch + depth :]),
            )
        ]
    require_axis("axis", axis, input.rank)
    if mode == "ELEMENT":
        require(batch == 0, f"attribute num_elementwise_dims: wanted 0, got {batch}")
        require_rank("indices", indices, input.rank)
        return [(input.dtype, indices.shape)]
    require(
        batch in (0, 1) and batch <= min(axis, indices.rank),
        f"attribute num_elementwise_dims: got {batch} for axis {axis} and {indices}",
    )
    _require_same_prefix(input, indices, batch)
    return [(input.dtype, (*input.shape[:axis], *indices.shape[batch:], *input.shape[axis + 1 :]))]


@rule
def scatter(
    data: Tensor, indices: Tensor, updates: Tensor, mode: str, axis: int | None = None
) -> Results:
    if mode == "ELEMENT":
        if axis is None:
            raise Mismatch("attribute axis: ELEMENT needs it")
        require_axis("axis", axis, data.rank)
        require_rank("indices", indices, data.rank)
        require_shape("updates", updates, indices.shape)
    else:
        require(indices.rank >= 1, f"operand indices: wanted rank 1 or more, got {indices}")
        depth = _depth("indices", indices, data.rank)
        require_shape("updates", updates, (*indices.shape[:-1], *data.shape[depth:]))
    return [(data.dtype, data.shape)]


@rule
def shuffle(
    input: Tensor,
    first_transpose: tuple[int, ...] | None = None,
    reshape_dims: Shape | None = None,
    second_transpose: tuple[int, ...] | None = None,
) -> Results:
    shape = _permuted("first_transpose", input.shape, first_transpose)
    if reshape_dims is not None:
        require_sizes("attribute reshape_dims", reshape_dims)
        require_volume("attribute reshape_dims", reshape_dims, shape)
        shape = tuple(reshape_dims)
    return [(input.dtype, _permuted("second_transpose", shape, second_transpose))]


@rule
def slice(
    input: Tensor, start: Shape, shape: Shape, stride: Shape, mode: str, fill: Tensor | None = None
) -> Results:
    for name, values in (("start", start), ("shape", shape), ("stride", stride)):
        require(len(values) == input.rank, f"attribute {name}: wanted one value a dim of {input}")
    require_sizes("attribute shape", shape)
    if fill is not None:
        require(mode == "FILL", f"operand fill: only with mode FILL, got {mode}")
        require_volume("operand fill", fill.shape, ())
    if mode == "STRICT_BOUNDS":
        for size, first, count, step in zip(input.shape, start, shape, stride, strict=True):
            if count == 0:
                continue
            for index in (first, first + (count - 1) * step):
                beyond = index - size
                require(
                    not (isinstance(index, int) and index < 0)
                    and not (isinstance(beyond, int) and beyond >= 0),
                    f"start {text(start)}, shape {text(shape)} and stride {text(stride)} "
                    f"leave {input}",
                )
    return [(input.dtype, tuple(shape))]


@rule
def concatenation(inputs: Sequence[Tensor], axis: int) -> Results:
    first = inputs[0]
    require_axis("axis", axis, first.rank)
    sizes: list[Dim] = list(first.shape)
    for tensor in inputs[1:]:
        require(tensor.dtype == first.dtype, f"operand inputs: {tensor} is no {first.dtype}")
        require_rank("inputs", tensor, first.rank)
        for i, size in enumerate(tensor.shape):
            known = sizes[i] + size if i == axis else agree(sizes[i], size)
            if known is None:
                raise Mismatch(f"operand inputs: {tensor} does not fit {first} beside axis {axis}")
            sizes[i] = known
    return [(first.dtype, tuple(sizes))]


@rule
def fill(
    shape: Shape,
    op: str,
    output_type: str,
    alpha: Dim | float | None = None,
    beta: tuple[Dim | float, ...] | None = None,
    alpha_tensor: Tensor | None = None,
    beta_tensor: Tensor | None = None,
) -> Results:
    require_sizes("attribute shape", shape)
    if op != "LINSPACE":
        raise Mismatch(f"attribute op: wanted LINSPACE, got {op}: random numbers do not repeat")
    wanted = frozenset({"INT32", "INT64", "FLOAT"})
    require(output_type in wanted, f"attribute output_type: {op} makes no {output_type}")
    for name, number, tensor, rank in (
        ("alpha", alpha, alpha_tensor, 0),
        ("beta", beta, beta_tensor, 1),
    ):
        require(
            (number is None) != (tensor is None), f"{name} and {name}_tensor: wanted one of them"
        )
        if tensor is not None:
            require_rank(f"{name}_tensor", tensor, rank)
            require(tensor.dtype == output_type, f"operand {name}_tensor: wanted {output_type}")
    steps = (len(beta),) if beta is not None else beta_tensor.shape if beta_tensor else ()
    require(steps == (len(shape),), f"beta: wanted a step for each dim of {text(shape)}")
    kinds = {isinstance(step, Expr) for step in beta or () if not isinstance(step, int)}
    require(len(kinds) < 2, "beta: wanted sizes or fractions, got both")
    for number in (alpha, *(beta or ())):
        whole = number is None or isinstance(number, int | Expr)
        require(whole or output_type in FLOATS, f"alpha or beta: {number} is no {output_type}")
    return [(output_type, tuple(shape))]


@rule
def one_hot(indices: Tensor, values: Tensor, depth: int, axis: int) -> Results:
    require_shape("values", values, (2,))
    require(values.dtype in NUMBERS | {"BOOL"}, f"operand values: got {values}")
    require(depth > 0, f"attribute depth: wanted 1 or more, got {depth}")
    require_axis("axis", axis, indices.rank + 1)
    return [(values.dtype, (*indices.shape[:axis], depth, *indices.shape[axis:]))]


def _depth(name: str, indices: Tensor, largest: int) -> int:
    depth = indices.shape[-1]
    if not isinstance(depth, int) or not 1 <= depth <= largest:
        raise Mismatch(f"operand {name}: wanted a last dim from 1 to {largest}, got {indices}")
    return depth


def _require_same_prefix(input: Tensor, indices: Tensor, count: int) -> None:
    for a, b in zip(input.shape[:count], indices.shape[:count], strict=True):
        require(agree(a, b) is not None, f"operand indices: {indices} does not fit {input}")


def _permuted(name: str, shape: Shape, order: tuple[int, ...] | None) -> Shape:
    if order is None:
        return shape
    require(
        sorted(order) == list(range(len(shape))),
        f"attribute {name}: wanted a permutation of {len(shape)} dims, got {order}",
    )
    return tuple(shape[i] for i in order)
