# SPDX-License-Identifier: Apache-2.0
"""A plan's segments: each cut out of the whole graph as a graph of its own."""

from __future__ import annotations

import operator
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sympy
import torch
from torch import fx

from .branches import branches
from .capture import returned
from .converters.node import Refusal, unheld
from .converters.symbols import Symbols
from .lowering.expand_composites import expand_composites
from .lowering.inline_sizes import SIZES
from .target import Target

Kind = Literal["tensorrt", "torch"]


@dataclass(frozen=True)
class PlannedSegment:
    """One step: a graph of its own. ``inputs`` and ``outputs`` name values of the whole graph.

    An input is a placeholder of the same name in ``graph_module``; the outputs stand in order. Of
    PyTorch's segments those that are not ``compiled`` run operator by operator. ``predicted_us``
    are the microseconds it was chosen by, where that was asked.
    """

    name: str
    kind: Kind
    graph_module: fx.GraphModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    compiled: bool = True
    predicted_us: float | None = None

    @property
    def operators(self) -> Counter[str]:
        """Operator overload -> how often, ``getitem`` left out."""
        return Counter(str(n.target) for n in self.graph_module.graph.nodes if computes(n))


@dataclass(frozen=True)
class Prediction:
    """Microseconds of a plan that was chosen by cost; of as many nodes on engines as can be; of
    none on engines. ``measured`` says that segments were timed, on what; else they are told by
    sizes, rates and overheads."""

    us: float
    most_us: float
    none_us: float
    measured: str | None = None


@dataclass(frozen=True)
class Plan:
    """Segments in execution order, what TensorRT refused, and what was too small to be worth it.

    ``outputs`` are the graph's outputs as value names; a value that is a constant is named by
    ``constants`` (value -> stored tensor). ``prediction`` tells what a choice by cost was made by.
    """

    segments: tuple[PlannedSegment, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, str]
    refusals: tuple[Refusal, ...]
    prediction: Prediction | None = None


@dataclass(frozen=True)
class Piece:
    """The nodes of a segment, in the graph's order, and what runs them."""

    kind: Kind
    nodes: Sequence[fx.Node]
    compiled: bool = True
    predicted_us: float | None = None


def cut(
    module: fx.GraphModule, pieces: Sequence[Piece], method: str, target: Target
) -> list[PlannedSegment]:
    """Each piece as a segment, in their order."""
    holder = [target if piece.kind == "tensorrt" else None for piece in pieces]
    inputs = [_inputs(module, p.nodes, t) for p, t in zip(pieces, holder, strict=True)]
    read = set(returned(module.graph)).union(*inputs)
    return [
        _segment(module, f"{method}_{i}", piece, taken, [n for n in piece.nodes if n in read])
        for i, (piece, taken) in enumerate(zip(pieces, inputs, strict=True))
    ]


def computes(node: fx.Node) -> bool:
    """Whether a node does work, and does not only unpack a tuple."""
    return node.op == "call_function" and node.target is not operator.getitem and not is_size(node)


def is_size(node: fx.Node) -> bool:
    """Whether a node is a size that only the data tells; such nodes are copied, never passed."""
    return isinstance(node.meta.get("val"), SIZES)


def reads_of(node: fx.Node) -> list[fx.Node]:
    """The tensors a node reads, sizes traced back to the tensors they are of."""
    return [
        source
        for argument in node.all_input_nodes
        for source in (reads_of(argument) if is_size(argument) else [argument])
    ]


def needs(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """What nodes read that is not among them."""
    own = set(nodes)
    return {n for node in own for n in reads_of(node)} - own


def _inputs(
    module: fx.GraphModule, nodes: Sequence[fx.Node], target: Target | None
) -> list[fx.Node]:
    """The tensors a segment takes: what it reads, and graph inputs it needs only for a size.

    Of these the first that ``target`` can hold, where there is one.
    """
    needed = {n for n in needs(nodes) if n.op != "get_attr"}
    inputs = [n for n in module.graph.nodes if n in needed]
    known = Symbols((n.name, n.meta["val"]) for n in inputs)
    for symbol in sorted({s for node in nodes for s in symbols_of(node)}, key=str):
        if known.knows(symbol):
            continue
        carriers = carriers_of(module, symbol)
        held = (n for n in carriers if target is None or unheld(n.meta["val"], target) is None)
        carrier = next(held, None)
        if carrier is not None and carrier not in inputs:
            inputs.append(carrier)
    return inputs


def carriers_of(module: fx.GraphModule, symbol: sympy.Symbol) -> list[fx.Node]:
    """The graph inputs whose shapes tell a size."""
    return [n for n in module.graph.find_nodes(op="placeholder") if symbol in symbols_of(n)]


def _segment(
    module: fx.GraphModule,
    name: str,
    piece: Piece,
    inputs: list[fx.Node],
    outputs: list[fx.Node],
) -> PlannedSegment:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
        copies[node].name = node.name
        copies[node].meta = dict(node.meta)
    with warnings.catch_warnings():
        # sizes are written as SymInts on purpose: a segment's graph is data, never executed
        warnings.filterwarnings("ignore", message="Raw SymInt value")
        for node in piece.nodes:
            for argument in node.all_input_nodes:
                _copy_source(graph, argument, copies)
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].name = node.name
        graph.output(tuple(copies[n] for n in outputs))
        sub = fx.GraphModule(module, graph)
        if piece.kind == "torch":
            expand_composites(sub.graph)
            sub.recompile()
    return PlannedSegment(
        name,
        piece.kind,
        sub,
        tuple(n.name for n in inputs),
        tuple(n.name for n in outputs),
        piece.compiled,
        piece.predicted_us,
    )


def _copy_source(graph: fx.Graph, node: fx.Node, copies: dict[fx.Node, fx.Node]) -> None:
    """Copies a constant or a size into a segment, with the sizes it is made of."""
    if node in copies:
        return
    for argument in node.all_input_nodes:
        _copy_source(graph, argument, copies)
    copies[node] = graph.node_copy(node, copies.__getitem__)


def symbols_of(node: fx.Node) -> set[sympy.Symbol]:
    """The size symbols of a node's result and of the sizes among its arguments."""
    found: set[sympy.Symbol] = set()
    for value in (node.meta.get("val"), node.args, tuple(node.kwargs.values())):
        for expression in _expressions(value):
            found |= expression.free_symbols
    return found.union(*(symbols_of(n) for branch in branches(node) for n in branch.graph.nodes))


def _expressions(value: Any) -> list[sympy.Expr]:
    if isinstance(value, torch.SymInt):
        return [value.node.expr]
    if isinstance(value, torch.Tensor):
        sizes: Sequence[Any] = value.shape
        return [s.node.expr for s in sizes if isinstance(s, torch.SymInt)]
    if isinstance(value, list | tuple):
        return [e for v in value for e in _expressions(v)]
    return []
