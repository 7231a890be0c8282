# SPDX-License-Identifier: Apache-2.0
"""Which values of a lowered graph are quantized: those where TensorRT computes with few bits.

Products read numbers of few bits and weights of few bits. TensorRT adds within a convolution where
the other summand has few bits too, pools in them, and joins tensors of one scale without touching a
number. A value is quantized once for all of its readers.

Source: TensorRT's documentation, "Working with Quantized Types", the recommendations on where Q/DQ
layers belong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import fx

aten = torch.ops.aten

_POOLS = frozenset(
    (aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.avg_pool3d.default)
)
_PRODUCTS = frozenset((aten.mm.default, aten.bmm.default, aten.matmul.default))


@dataclass(frozen=True)
class Use:
    """A product's or other reader's operand: argument ``index`` of ``reader``."""

    reader: fx.Node
    index: int

    @property
    def value(self) -> fx.Node:
        """What it reads."""
        found = self.reader.args[self.index]
        assert isinstance(found, fx.Node)
        return found


@dataclass(frozen=True)
class Weight(Use):
    """A constant operand; ``axis`` is that of the channels a product answers."""

    axis: int | None


@dataclass(frozen=True)
class Places:
    """What is to be quantized. ``joined`` are operands that share the scale of what joins them."""

    products: tuple[fx.Node, ...]
    uses: tuple[Use, ...]
    weights: tuple[Weight, ...]
    joined: tuple[tuple[fx.Node, int], ...]

    def values(self) -> list[fx.Node]:
        """The computed values, each once, in order of their uses."""
        return list(dict.fromkeys(use.value for use in self.uses))


def places(
    graph: fx.Graph,
    constant: Callable[[fx.Node], bool],
    leave: Callable[[fx.Node], bool] = lambda node: False,
) -> Places:
    """The places of a graph; products that ``leave`` names stay as they are."""
    products, uses, weights = [], [], []
    for node in graph.nodes:
        operands = [] if leave(node) else list(_operands(node))
        if not operands or not _computes_with_floats(node):
            continue
        products.append(node)
        for index, axis in operands:
            value = node.args[index]
            assert isinstance(value, fx.Node)
            if constant(value):
                weights.append(Weight(node, index, axis))
            else:
                uses.append(Use(node, index))
    quantized = {use.value for use in uses}
    for node in graph.nodes:
        if not leave(node):
            uses += [use for use in _around(node, set(products)) if not constant(use.value)]
    joined = [
        (node, index)
        for node in graph.nodes
        if node.target is aten.cat.default and node in quantized
        for index, part in enumerate(node.args[0])
        if not constant(part)
    ]
    return Places(tuple(products), tuple(uses), tuple(weights), tuple(joined))


def _operands(node: fx.Node) -> Iterator[tuple[int, int | None]]:
    """The operands of a product by their argument's number, each with the axis of the channels it
    would have if it is a weight."""
    if node.target is aten.convolution.default:
        transposed, groups = bool(node.args[6]), node.args[8]
        yield 0, None
        yield 1, (1 if groups == 1 else None) if transposed else 0
    elif node.target is aten.linear.default:
        yield 0, None
        yield 1, 0
    elif node.target is aten.addmm.default:
        yield 1, None
        yield 2, 1
    elif node.target in _PRODUCTS:
        left, right = node.args[0], node.args[1]
        if _rank(left) >= 2 and _rank(right) >= 2:
            yield 0, _rank(left) - 2
            yield 1, _rank(right) - 1


def _around(node: fx.Node, products: set[fx.Node]) -> Iterator[Use]:
    """What a convolution's neighbours read in few bits: the other summand of a residual, and what
    is pooled."""
    if node.target is aten.add.Tensor and node.kwargs.get("alpha", 1) == 1:
        left, right = node.args[0], node.args[1]
        if isinstance(left, fx.Node) and isinstance(right, fx.Node) and _same(left, right):
            if _adds_within(right, products) and not _adds_within(left, products):
                yield Use(node, 0)
            elif _adds_within(left, products):
                yield Use(node, 1)
    elif node.target in _POOLS and _comes_from_convolution(node.args[0], products):
        yield Use(node, 0)


def _adds_within(node: fx.Node, products: set[fx.Node]) -> bool:
    """Whether a value is a quantized convolution's, which may add what comes next itself."""
    return node in products and node.target is aten.convolution.default and len(node.users) == 1


def _comes_from_convolution(value: object, products: set[fx.Node]) -> bool:
    """Whether a value is made by a quantized convolution, its sum or its activation."""
    for _ in range(3):
        if not isinstance(value, fx.Node) or value.op != "call_function":
            return False
        if value.target is aten.convolution.default:
            return value in products
        if value.target is aten.add.Tensor and isinstance(value.args[1], fx.Node):
            value = max(value.args[:2], key=lambda part: part in products)
        elif len(value.all_input_nodes) == 1:
            (value,) = value.all_input_nodes
        else:
            return False
    return False


def _computes_with_floats(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in (
        torch.float32,
        torch.float16,
        torch.bfloat16,
    )


def _rank(node: object) -> int:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dim() if isinstance(value, torch.Tensor) else 0


def _same(left: fx.Node, right: fx.Node) -> bool:
    a, b = left.meta.get("val"), right.meta.get("val")
    return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape
