# SPDX-License-Identifier: Apache-2.0
"""What a converter sees: the target, the node's result, and TensorRT's layers as methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from trtpack.target import Target
from trtpack_runtime import dims, recipes
from trtpack_runtime.dims import Dim
from trtpack_runtime.dtypes import DTYPES, by_torch
from trtpack_runtime.layers import FLOATS, INTS
from trtpack_runtime.network import Network, Tensor
from trtpack_runtime.recorder import Recorder

from .bounds import Bounds
from .constants import Constants
from .moves import Move

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


class Context:
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
        self.target, self.bounds = target, bounds or Bounds()
        self.results: tuple[Tensor, ...] = ()
        self.scope, self.origin = "", ""
        self._recorder = recorder
        self._never_negative: set[str] = set()
        self._made_of: dict[str, Tensor] = {}
        self._moves: dict[str, Move] = {}
        self._constants = constants

    @property
    def result(self) -> Tensor:
        """What PyTorch says the node's first output is; its name means nothing."""
        return self.results[0]

    def has(self, release: str) -> bool:
        """Whether the target's TensorRT is at least ``release``, such as ``"10.8"``."""
        return self.target.tensorrt_at_least(release)

    def add(self, kind: str, operands: dict[str, Any], **attributes: Any) -> Tensor:
        """Adds a layer of any kind and answers its first output."""
        return self.add_all(kind, operands, **attributes)[0]

    def add_all(
        self,
        kind: str,
        operands: dict[str, Any],
        regions: Mapping[str, Network] | None = None,
        /,
        **attributes: Any,
    ) -> tuple[Tensor, ...]:
        """Adds a layer of any kind and answers all its outputs."""
        outputs = self._recorder.add(
            kind,
            operands,
            attributes,
            name=self.scope or kind,
            origin=self.origin,
            regions=regions,
        )
        if self._counts_up(kind, operands, attributes):
            self._never_negative.update(t.name for t in outputs)
        return outputs

    def region(self) -> tuple[Context, Recorder]:
        """A context and a recorder for a network that a layer of this one will own."""
        recorder = self._recorder.region()
        inner = Context(self.target, recorder, self._constants, self.bounds)
        inner.scope, inner.origin = self.scope, self.origin
        return inner, recorder

    def is_never_negative(self, tensor: Tensor) -> bool:
        """Whether a tensor of indices is known to count from the start only."""
        if self.is_constant(tensor):
            return bool((self.value(tensor) >= 0).all())
        return tensor.name in self._never_negative

    def _counts_up(self, kind: str, operands: dict[str, Any], attributes: dict[str, Any]) -> bool:
        if kind == "fill":
            return all(at_least_zero(v) for v in (attributes["alpha"], *attributes["beta"]))
        if kind in ("non_zero", "nms"):
            return True
        if kind not in ("shuffle", "cast", "gather", "slice") or operands.get("fill"):
            return False
        return operands["input"].dtype in INTS and self.is_never_negative(operands["input"])

    # constants

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether a tensor's value is known now."""
        return self._recorder.is_constant(tensor)

    def value(self, tensor: Tensor) -> torch.Tensor:
        """The value of a constant, in the constant's shape."""
        assert dims.is_static(tensor.shape)
        return self._constants.values[tensor.name].reshape(tensor.shape)

    def constant(self, value: torch.Tensor, name: str) -> Tensor:
        """A constant that follows from no parameter, such as a mask or a table of indices."""
        value = value.detach().contiguous()
        stored = self._constants.put_table(f"{self.scope}|{name}", value)
        return self._recorder.constant(by_torch(value.dtype).name, tuple(value.shape), stored)

    def fold(self, op: OpOverload, tensor: Tensor, *args: Any, use: str) -> Tensor:
        """``op(tensor, *args)`` evaluated now; the recipe is kept so that weights can be refitted.

        ``use`` names the derived constant: ``<parameter>|<use>``. ``args`` may be constants too.
        """
        operands = (tensor, *args)
        value = op(*(self.value(a) if isinstance(a, Tensor) else a for a in operands)).contiguous()
        dtype, shape = by_torch(value.dtype).name, tuple(value.shape)
        if self._constants.tables.issuperset(a.name for a in operands if isinstance(a, Tensor)):
            stored = self._constants.put_table(f"{tensor.name}|{use}", value)
            return self._recorder.constant(dtype, shape, stored)
        sources = [self._recipe(a) if isinstance(a, Tensor) else a for a in operands]
        recipe = recipes.call(op, sources, {})
        stored = self._constants.put(f"{tensor.name}|{use}", value, recipe)
        return self._recorder.constant(dtype, shape, stored, recipe)

    def _recipe(self, constant: Tensor) -> recipes.Recipe:
        return self._constants.recipes.get(constant.name, {"constant": constant.name})

    def scalar(self, value: float | int | bool, dtype: str, rank: int = 0) -> Tensor:
        """A one-element constant of ``rank`` dims, each of size 1."""
        shape = (1,) * rank
        number = torch.tensor(value).to(getattr(torch, DTYPES[dtype].torch)).reshape(shape)
        recipe = recipes.call(torch.ops.aten.full.default, [shape, value], {"dtype": number.dtype})
        text = "x".join(["literal", dtype, repr(value), str(rank)])
        return self._recorder.constant(
            dtype, shape, self._constants.put_table(text, number, recipe)
        )

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

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """``x`` as ``dtype``; ``x`` itself where it already is.

        TensorRT has UINT8 only at a network's borders: what reads a UINT8 made inside gets the
        numbers it was made of.
        """
        if x.dtype == dtype:
            return x
        x = self._made_of.get(x.name, x)
        if x.dtype == dtype:
            return x
        if self.is_constant(x) and x.dtype in DTYPES:
            torch_dtype = getattr(torch, DTYPES[dtype].torch)
            return self.fold(
                torch.ops.prims.convert_element_type.default, x, torch_dtype, use=dtype.lower()
            )
        if dtype == "UINT8" and x.dtype in INTS:
            over = self.elementwise("PROD", self.elementwise("FLOOR_DIV", x, 256), 256)
            x = self.cast(self.elementwise("SUB", x, over), "INT32")
        made = self.add("cast", {"input": x}, to_type=dtype)
        if dtype == "UINT8":
            self._made_of[made.name] = self.cast(x, "INT32")
        return made

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
        """One layer for a chain of moves; those it replaces go where nothing else reads them."""
        if move.changes_nothing:
            return move.source
        made = self.add("shuffle", {"input": move.source}, **move.attributes)
        self._moves[made.name] = move
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


def at_least_zero(value: Dim | float) -> bool:
    """Whether a number, or a size expression whatever its sizes, is 0 or more."""
    if isinstance(value, dims.Expr):
        return all(coefficient > 0 for _, coefficient in value.terms)
    return value >= 0


def normalized(axes: Axes, rank: int) -> tuple[int, ...]:
    """Axes counted from 0, sorted; one int or several."""
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    return tuple(sorted(a % rank for a in axes)) if rank else ()


def _shape_text(shape: Sequence[Dim]) -> str:
    return "x".join(map(str, shape)) or "scalar"
