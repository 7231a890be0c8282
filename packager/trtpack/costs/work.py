# SPDX-License-Identifier: Apache-2.0
"""What each node of a graph does: operations, bytes read and written, whether it can be fused."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import fx
from torch._ops import OpOverload

from ..options import SizeRange

Nature = Literal["view", "pointwise", "reduction", "product", "other"]

_POINTWISE = frozenset(
    (
        *("_to_copy", "arange", "cat", "constant_pad_nd", "embedding", "full", "full_like"),
        *("gather", "index_select", "masked_fill", "scalar_tensor", "stack", "where"),
    )
)
"""Operators without the tag that compilers compute element by element all the same."""
_REDUCTIONS = frozenset(
    (
        *("_softmax", "_log_softmax", "softmax", "log_softmax", "logsumexp", "linalg_vector_norm"),
        *("layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "rms_norm"),
        *("instance_norm", "batch_norm", "_native_batch_norm_legit_no_training"),
    )
)
_MATRIX = frozenset(("mm", "bmm", "matmul", "addmm", "baddbmm", "addbmm", "linear", "einsum"))
_CONVOLUTIONS = ("convolution", "conv1d", "conv2d", "conv3d", "conv_transpose")
_ATTENTION = "scaled_dot_product_attention"
_RECURRENT = frozenset(("lstm", "gru", "rnn_tanh", "rnn_relu"))
_VIEWS = frozenset(("reshape", "flatten", "alias", "_reshape_alias"))
_UNTOLD = 64
"""What a size is taken for that only the data tells and nothing bounds."""


@dataclass(frozen=True)
class Work:
    """One node's work at the optimum sizes.

    ``reads`` has the bytes of each value it reads, stored tensors included; ``writes`` those of its
    results. A view does no work; ``scatters`` says that what it answers is not contiguous.
    ``light`` is a convolution that reads and writes three times as many numbers as it has weights.
    ``kernels`` are those of TensorRT at the least, the last of which may be one with a reader's.
    """

    nature: Nature
    flops: float
    reads: Mapping[fx.Node, int]
    writes: int
    dtype: torch.dtype
    scatters: bool = False
    light: bool = False
    kernels: int = 0


def works(
    module: fx.GraphModule,
    ranges: Mapping[str, SizeRange],
    kernels: Mapping[str, int] | None = None,
) -> dict[fx.Node, Work]:
    """The work of every node that computes, dynamic sizes at their optimum; ``kernels`` by node's
    name where they were counted (``kernels.kernels_of``)."""
    sizes = _Sizes(ranges)
    found = {}
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and node.target is not operator.getitem and _leaves(value):
            work = _work(node, sizes)
            found[node] = replace(work, kernels=(kernels or {}).get(node.name, 0))
    return found


def is_fusible(nodes: Iterable[fx.Node]) -> bool:
    """Whether a compiler could fuse anything: one operator alone is the kernel that it is."""
    computing = (n for n in nodes if n.op == "call_function" and n.target is not operator.getitem)
    natures = [_nature(node) for node in computing if _leaves(node.meta.get("val"))]
    return len(natures) - natures.count("view") > 1


class _Sizes:
    def __init__(self, ranges: Mapping[str, SizeRange]) -> None:
        self._ranges = ranges
        self._known: dict[Any, int] = {}

    def size(self, size: Any) -> int:
        if isinstance(size, int):
            return size
        expression = size.node.expr
        if expression not in self._known:
            self._known[expression] = self._at_optimum(size, expression)
        return self._known[expression]

    def _at_optimum(self, size: Any, expression: Any) -> int:
        known = {s: self._symbol(size, s) for s in expression.free_symbols}
        value = expression.subs(known)
        return max(0, int(value)) if value.is_number and value.is_finite else _UNTOLD

    def _symbol(self, size: Any, symbol: Any) -> int:
        if str(symbol) in self._ranges:
            return self._ranges[str(symbol)].optimum
        hint = size.node.shape_env.backed_var_to_val.get(symbol)
        return int(hint) if hint is not None else _UNTOLD

    def shape(self, value: torch.Tensor) -> list[int]:
        return [self.size(size) for size in value.shape]

    def count(self, value: torch.Tensor) -> int:
        return math.prod(self.shape(value))

    def nbytes(self, value: Any) -> int:
        return sum(self.count(leaf) * leaf.dtype.itemsize for leaf in _leaves(value))


def _work(node: fx.Node, sizes: _Sizes) -> Work:
    value = node.meta["val"]
    reads: dict[fx.Node, int] = {}
    for source in _sources(node):
        maker = _maker(source)
        reads[maker] = reads.get(maker, 0) + sizes.nbytes(source.meta["val"])
    writes = sizes.nbytes(value)
    first = next(_leaves_of(value))
    nature = _nature(node)
    flops = _flops(node, nature, sizes)
    if nature == "view":
        return Work(nature, 0, reads, writes, first.dtype, not first.is_contiguous())
    if _name(node) in ("embedding", "gather", "index_select", "index"):
        table = next(iter(reads), None)  # of which it reads no more than it answers
        reads = {n: min(b, writes) if n is table else b for n, b in reads.items()}
    return Work(nature, flops, reads, writes, first.dtype, light=_is_light(node, sizes))


def _nature(node: fx.Node) -> Nature:
    op, name = node.target, _name(node)
    if not isinstance(op, OpOverload):
        return "other"
    if op.is_view or name in _VIEWS:
        return "view"
    if name in _MATRIX or _convolved(node) or name == _ATTENTION or name in _RECURRENT:
        return "product"
    if torch.Tag.pointwise in op.tags or name in _POINTWISE:
        return "pointwise"
    if torch.Tag.reduction in op.tags or name in _REDUCTIONS:
        return "reduction"
    return "other"


def _flops(node: fx.Node, nature: Nature, sizes: _Sizes) -> float:
    """Operations; a multiplication and an addition are two."""
    name, tensors = _name(node), [n.meta["val"] for n in _sources(node)]
    out = sum(map(sizes.count, _leaves(node.meta["val"])))
    if convolved := _convolved(node):
        source, weight = convolved
        transposed = "transpose" in name or (name == "convolution" and node.args[6] is True)
        each = sizes.count(source) if transposed else out
        return 2.0 * math.prod(sizes.shape(weight)[1:]) * each
    if nature == "product" and len(tensors) > 1:
        if name == _ATTENTION:
            query, keys = sizes.shape(tensors[0]), sizes.shape(tensors[1])
            return 4.0 * math.prod(query) * keys[-2]
        if name in _RECURRENT:
            steps = math.prod(sizes.shape(tensors[0])[:-1])
            return 2.0 * steps * sum(map(sizes.count, tensors[2:]))
        product = tensors[1:] if name in ("addmm", "baddbmm", "addbmm") else tensors
        return 2.0 * out * sizes.shape(product[0])[-1]
    read = max(map(sizes.count, tensors), default=0)
    return 0.0 if nature == "view" else float(max(out, read))


def _is_light(node: fx.Node, sizes: _Sizes) -> bool:
    if not (convolved := _convolved(node)):
        return False
    source, weight = map(sizes.count, convolved)
    return 3 * weight < source + sizes.count(node.meta["val"])


def _convolved(node: fx.Node) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What a convolution reads, and its weight, which may be the same; None of all else."""
    if not _name(node).startswith(_CONVOLUTIONS):
        return None
    match node.args:
        case (fx.Node() as source, fx.Node() as weight, *_):
            return source.meta["val"], weight.meta["val"]
    return None


def _name(node: fx.Node) -> str:
    """``relu`` of ``aten.relu.default``."""
    op = node.target
    return op._schema.name.partition("::")[2] if isinstance(op, OpOverload) else str(op)


def _sources(node: fx.Node) -> list[fx.Node]:
    """The nodes a node reads tensors of, in the order of its arguments, each once."""
    return [n for n in dict.fromkeys(node.all_input_nodes) if _leaves(n.meta.get("val"))]


def _maker(node: fx.Node) -> fx.Node:
    while node.target is operator.getitem:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node = source
    return node


def _leaves(value: Any) -> list[torch.Tensor]:
    return list(_leaves_of(value))


def _leaves_of(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves_of(item)
