# SPDX-License-Identifier: Apache-2.0
"""What a converter sees: the target, the node's result, and TensorRT's layers as methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from trtpack.target import Target
from trtpack_runtime import dims
from trtpack_runtime.dims import Dim
from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Tensor
from trtpack_tools.recorder import Recorder

from .bounds import Bounds
from .constants import Constants
from .moves import Move
from .recording import Recording

Axes = int | Sequence[int]

aten = torch.ops.aten
_UNARY = {
    "EXP": aten.exp.default,
    "NEG": aten.neg.default,
    "RECIP": aten.reciprocal.default,
    "SQRT": aten.sqrt.default,
}
_BINARY = {
    "DIV": aten.div.Tensor,
    "PROD": aten.mul.Tensor,
    "SUB": aten.sub.Tensor,
    "SUM": aten.add.Tensor,
}


class Context(Recording):
    """The recorder of one segment, with the conveniences every converter needs.

    ``target`` decides which layers exist; ``results`` are the types and shapes PyTorch gives the
    node's outputs (``result`` is the first), ``bounds`` what sizes can become. Every method
    answers ``Tensor``s.
    """

    def __init__(
        self,
        target: Target,
        recorder: Recorder,
        constants: Constants,
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__(target, recorder, constants, bounds)
        self._moves: dict[str, Move] = {}

    def region(self) -> tuple[Context, Recorder]:
        """A context and a recorder for a network that a layer of this one will own."""
        recorder = self._recorder.region()
        inner = Context(self.target, recorder, self._constants, self.bounds)
        inner.scope, inner.origin = self.scope, self.origin
        return inner, recorder

    # sizes

    def size(self, value: Dim, dtype: str = "INT64", rank: int = 0) -> Tensor:
        """A size as a one-element tensor of ``rank`` dims, each of size 1."""
        if isinstance(value, int):
            return self.scalar(value, dtype, rank)
        ones = (1,) * max(rank, 1)
        read = self.cast(self.ramp(ones, (0,) * len(ones), value), dtype)
        return self.reshape(read, (1,) * rank)

    def ramp(
        self, shape: Sequence[Dim], steps: Sequence[Dim], start: Dim = 0, *, dtype: str = "INT64"
    ) -> Tensor:
        """``start + sum(index[i] * steps[i])`` at every index: a constant where sizes are known."""
        shape, steps = tuple(shape), tuple(steps)
        if not (dims.is_static(shape) and dims.is_static(steps) and isinstance(start, int)):
            return self.add(
                "fill", {}, shape=shape, op="LINSPACE", output_type=dtype, alpha=start, beta=steps
            )
        torch_dtype = getattr(torch, DTYPES[dtype].torch)
        value = torch.full(shape, start, dtype=torch_dtype)
        for axis, step in enumerate(steps):
            along = [1] * axis + [-1] + [1] * (len(shape) - axis - 1)
            value = value + step * torch.arange(shape[axis], dtype=torch_dtype).view(along)
        text = f"ramp {dtype} {_shape_text(shape)} by {_shape_text(steps)} from {start}"
        stored = self._constants.put_table(text, value)
        return self._recorder.constant(dtype, shape, stored)

    # types and ranks

    def operand(self, value: Tensor | Dim | float, dtype: str, rank: int = 0) -> Tensor:
        """A tensor, size or Python number as a tensor of ``dtype`` and at least ``rank`` dims."""
        if isinstance(value, Tensor):
            return self.unsqueeze_to(self.cast(value, dtype), rank)
        if isinstance(value, dims.Expr):
            return self.size(value, dtype, rank)
        return self.scalar(value, dtype, rank)

    def unsqueeze_to(self, x: Tensor, rank: int) -> Tensor:
        """``x`` with leading dims of size 1 up to ``rank``, as broadcasting aligns shapes."""
        if x.rank >= rank:
            return x
        return self.reshape(x, (1,) * (rank - x.rank) + x.shape)

    # layers

    def activation(
        self, type: str, x: Tensor, *, alpha: float | None = None, beta: float | None = None
    ) -> Tensor:
        """An ``ActivationType`` on ``x``."""
        return self.add("activation", {"input": x}, type=type, alpha=alpha, beta=beta)

    def unary(self, op: str, x: Tensor) -> Tensor:
        """A ``UnaryOperation`` on ``x``; evaluated now where ``x`` is a constant."""
        if self.is_constant(x) and op in _UNARY and x.dtype in FLOATS:
            return self.fold(_UNARY[op], x, use=op.lower())
        return self.add("unary", {"input": x}, op=op)

    def elementwise(self, op: str, a: Tensor | float, b: Tensor | float) -> Tensor:
        """An ``ElementWiseOperation`` with PyTorch's broadcasting; types must already agree.

        A Python number takes the other operand's type. Evaluated now where both are constants.
        """
        rank = max(t.rank for t in (a, b) if isinstance(t, Tensor))
        dtype = next(t.dtype for t in (a, b) if isinstance(t, Tensor))
        first = self.unsqueeze_to(a, rank) if isinstance(a, Tensor) else self.scalar(a, dtype, rank)
        other = self.unsqueeze_to(b, rank) if isinstance(b, Tensor) else self.scalar(b, dtype, rank)
        constant = self.is_constant(first) and self.is_constant(other)
        constant = constant and self._constants.can_meet(first.name, other.name)
        if constant and op in _BINARY and dtype in FLOATS:
            return self.fold(_BINARY[op], first, other, use=f"{op.lower()} {other.name}")
        return self.add("elementwise", {"input1": first, "input2": other}, op=op)

    def select(self, condition: Tensor, then: Tensor, otherwise: Tensor) -> Tensor:
        """``where(condition, then, otherwise)`` with broadcasting; types must already agree."""
        rank = max(condition.rank, then.rank, otherwise.rank)
        return self.add(
            "select",
            {
                "condition": self.unsqueeze_to(condition, rank),
                "then_input": self.unsqueeze_to(then, rank),
                "else_input": self.unsqueeze_to(otherwise, rank),
            },
        )

    def matmul(
        self, a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False
    ) -> Tensor:
        """Matrix product over the last two dims; batch dims broadcast."""
        rank = max(a.rank, b.rank)
        return self.add(
            "matrix_multiply",
            {"input0": self.unsqueeze_to(a, rank), "input1": self.unsqueeze_to(b, rank)},
            op0="TRANSPOSE" if transpose_a else "NONE",
            op1="TRANSPOSE" if transpose_b else "NONE",
        )

    def product_along(self, x: Tensor, matrix: Tensor, axis: int) -> Tensor:
        """``x`` with the (size, count) ``matrix`` applied to every line along ``axis``."""
        axis %= x.rank
        if axis == x.rank - 1 and x.rank > 1:
            return self.matmul(x, matrix)
        before, behind = x.shape[:axis], x.shape[axis + 1 :]
        flat = self.reshape(x, (*before, x.shape[axis], dims.product(behind)))
        out = self.matmul(matrix, flat, transpose_a=True)
        return self.reshape(out, (*before, matrix.shape[1], *behind))

    def reduce(self, op: str, x: Tensor, axes: Axes, *, keep_dims: bool) -> Tensor:
        """A ``ReduceOperation`` over ``axes`` (negative ones count from the end)."""
        return self.add(
            "reduce", {"input": x}, op=op, axes=normalized(axes, x.rank), keep_dims=keep_dims
        )

    def reshape(self, x: Tensor, shape: Sequence[Dim]) -> Tensor:
        """``x`` with another shape of as many elements; ``x`` itself where nothing changes."""
        shape = tuple(shape)
        if shape == x.shape:
            return x
        if self.is_constant(x) and dims.is_static(shape):
            return self.fold(aten.reshape.default, x, list(shape), use=_shape_text(shape))
        return self._move(self._moves.get(x.name, Move(x)).reshaped(x, shape))

    def permute(self, x: Tensor, order: Sequence[int]) -> Tensor:
        """``x`` with its dims in ``order``; ``x`` itself where nothing changes."""
        order = tuple(d % x.rank for d in order)
        if order == tuple(range(x.rank)):
            return x
        if self.is_constant(x):
            text = "permute_" + "".join(map(str, order))
            return self.fold(torch.ops.aten.permute.default, x, list(order), use=text)
        return self._move(self._moves.get(x.name, Move(x)).permuted(order))

    def _move(self, move: Move) -> Tensor:
        """One layer for a chain of moves; those it replaces go where nothing else reads them.

        A chain of UINT8 goes on where its numbers are read.
        """
        if move.changes_nothing:
            return move.source
        made = self.add("shuffle", {"input": move.source}, **move.attributes)
        self._moves[made.name] = move
        numbers = self.numbers(move.source)
        self._moves[self.numbers(made).name] = replace(move, source=numbers)
        return made

    def slice(
        self,
        x: Tensor,
        start: Sequence[Dim],
        shape: Sequence[Dim],
        stride: Sequence[Dim] | None = None,
        *,
        mode: str = "STRICT_BOUNDS",
        fill: Tensor | None = None,
    ) -> Tensor:
        """Elements ``start + i * stride`` of every dim; ``mode`` says what lies outside."""
        return self.add(
            "slice",
            {"input": x, "fill": fill},
            start=tuple(start),
            shape=tuple(shape),
            stride=tuple(stride or (1,) * x.rank),
            mode=mode,
        )

    def expand(self, x: Tensor, shape: Sequence[Dim]) -> Tensor:
        """``x`` broadcast to ``shape``: dims of size 1 are repeated, leading ones added."""
        shape = tuple(shape)
        x = self.unsqueeze_to(x, len(shape))
        if x.shape == shape:
            return x
        stride = tuple(
            0 if have == 1 and want != 1 else 1 for have, want in zip(x.shape, shape, strict=True)
        )
        return self.slice(x, (0,) * x.rank, shape, stride)

    def concatenate(self, tensors: Sequence[Tensor], axis: int) -> Tensor:
        """Tensors joined along ``axis``; a single one is answered as it is."""
        if len(tensors) == 1:
            return tensors[0]
        return self.add("concatenation", {"inputs": tuple(tensors)}, axis=axis % tensors[0].rank)

    def softmax(self, x: Tensor, axis: int) -> Tensor:
        """Softmax along ``axis``."""
        return self.add("softmax", {"input": x}, axes=normalized(axis, x.rank))

    def gather(self, x: Tensor, indices: Tensor, axis: int, *, mode: str = "DEFAULT") -> Tensor:
        """``GatherMode`` DEFAULT: ``x`` indexed along ``axis`` by a tensor of any rank."""
        return self.add(
            "gather", {"input": x, "indices": indices}, mode=mode, axis=axis % max(x.rank, 1)
        )

    def in_float32(self, x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """``compute`` in FLOAT, the answer cast back to ``x``'s type."""
        return self.cast(compute(self.cast(x, "FLOAT")), x.dtype)


def normalized(axes: Axes, rank: int) -> tuple[int, ...]:
    """Axes counted from 0, sorted; one int or several."""
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    return tuple(sorted(a % rank for a in axes)) if rank else ()


def _shape_text(shape: Sequence[Dim]) -> str:
    return "x".join(map(str, shape)) or "scalar"
