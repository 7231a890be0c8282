# SPDX-License-Identifier: Apache-2.0
"""Divides a lowered graph into TensorRT and PyTorch segments."""

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
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from .branches import branches
from .capture import returned
from .converters.node import Refusal, leaves, refusal, unheld, where
from .converters.symbols import Symbols, told_by_data
from .lowering.expand_composites import expand_composites
from .lowering.inline_sizes import SIZES
from .target import Target

Kind = Literal["tensorrt", "torch"]


@dataclass(frozen=True)
class PlannedSegment:
    """One step: a graph of its own. ``inputs`` and ``outputs`` name values of the whole graph.

    An input is a placeholder of the same name in ``graph_module``; the outputs stand in order.
    """

    name: str
    kind: Kind
    graph_module: fx.GraphModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def operators(self) -> Counter[str]:
        """Operator overload -> how often, ``getitem`` left out."""
        return Counter(str(n.target) for n in self.graph_module.graph.nodes if _computes(n))


@dataclass(frozen=True)
class Plan:
    """Segments in execution order, what TensorRT refused, and what was too small to be worth it.

    ``outputs`` are the graph's outputs as value names; a value that is a constant is named by
    ``constants`` (value -> stored tensor).
    """

    segments: tuple[PlannedSegment, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, str]
    refusals: tuple[Refusal, ...]


def partition(
    module: fx.GraphModule,
    target: Target,
    *,
    method: str = "forward",
    torch_ops: Iterable[str] = (),
    min_block_size: int = 1,
    refused: Mapping[str, str] | None = None,
) -> Plan:
    """Tags every node TensorRT or PyTorch and cuts the graph where the tag changes.

    ``torch_ops`` names operators kept in PyTorch (``aten.add.Tensor``, or ``aten.add`` for every
    overload); ``refused`` gives nodes that a later stage could not do, with the reason. Where the
    graph splits, a TensorRT segment of fewer than ``min_block_size`` operators joins PyTorch.
    A target without TensorRT gets one PyTorch segment.
    """
    refusals = _refusals(module, target, tuple(torch_ops), dict(refused or {}))
    groups: dict[fx.Node, int] = {}
    if target.engine_kind in ("tensorrt", "tensorrt-rtx"):
        groups = _groups(module, refusals)
        groups = _large_enough(groups, min_block_size, refusals)
        while found := _cut_off(module, groups) or _untold(module, groups, target):
            refusals |= found
            groups = _large_enough(_groups(module, refusals), min_block_size, refusals)
    segments = _schedule(module, groups, method, target)
    outputs = returned(module.graph)
    constants = {n.name: str(n.target) for n in outputs if n.op == "get_attr"}
    return Plan(
        tuple(segments), tuple(n.name for n in outputs), constants, tuple(refusals.values())
    )


class _Support(OperatorSupportBase):
    def __init__(self, refusals: Mapping[fx.Node, Refusal]) -> None:
        self.refusals = refusals

    def is_node_supported(self, submodules: Mapping[str, torch.nn.Module], node: fx.Node) -> bool:
        if node.target is operator.getitem:
            return self.is_node_supported(submodules, node.args[0])  # type: ignore[arg-type]
        if _is_size(node):
            return node.op == "call_function" and self.refusals.keys().isdisjoint(_reads(node))
        return _computes(node) and node not in self.refusals


def _computes(node: fx.Node) -> bool:
    """Whether a node does work, and does not only unpack a tuple."""
    return node.op == "call_function" and node.target is not operator.getitem and not _is_size(node)


def _refusals(
    module: fx.GraphModule, target: Target, torch_ops: tuple[str, ...], refused: dict[str, str]
) -> dict[fx.Node, Refusal]:
    if target.engine_kind not in ("tensorrt", "tensorrt-rtx"):
        return {}
    symbols = Symbols.of(module)
    found: dict[fx.Node, Refusal] = {}
    for node in module.graph.nodes:
        symbols.measured(node)
        if not _computes(node):
            continue
        name = str(node.target)
        reason = refused.get(node.name)
        within = [str(n.target) for branch in branches(node) for n in branch.graph.nodes]
        if any(op == n or n.startswith(op + ".") for op in torch_ops for n in (name, *within)):
            reason = "kept in PyTorch by --torch-op"
        reason = reason or refusal(node, target, symbols)
        if reason:
            found[node] = Refusal(node.name, name, reason, where(node))
    return found


def _groups(module: fx.GraphModule, refusals: Mapping[fx.Node, Refusal]) -> dict[fx.Node, int]:
    """Node -> TensorRT segment, by torch's own partitioner; unpacking goes with its producer."""
    partitioner = CapabilityBasedPartitioner(
        module, _Support(refusals), allows_single_node_partition=True
    )
    groups: dict[fx.Node, int] = {}
    for i, found in enumerate(partitioner.propose_partitions()):
        for node in found.nodes:
            if not _is_size(node):
                groups[node] = i
    for node in module.graph.nodes:
        if node.target is operator.getitem:
            producer = node.args[0]
            groups.pop(node, None)
            if producer in groups:
                groups[node] = groups[producer]
    return groups


def _cut_off(module: fx.GraphModule, groups: Mapping[fx.Node, int]) -> dict[fx.Node, Refusal]:
    """Nodes of TensorRT segments that need a size which data outside of their segment tells."""
    told_in: dict[sympy.Symbol, int | None] = {}
    found: dict[fx.Node, Refusal] = {}
    for node in module.graph.nodes:
        for value in leaves(node.meta.get("val")):
            for size in filter(None, map(told_by_data, value.shape)):
                told_in.setdefault(size, groups.get(node))
        if node not in groups or not _computes(node):
            continue
        needed = set().union(*(_symbols(n) for n in (node, *node.all_input_nodes)))
        for size in sorted(needed & told_in.keys(), key=str):
            if told_in[size] != groups[node]:
                reason = f"size {size} depends on data outside of its segment"
                found[node] = Refusal(node.name, str(node.target), reason, where(node))
    return found


def _untold(
    module: fx.GraphModule, groups: Mapping[fx.Node, int], target: Target
) -> dict[fx.Node, Refusal]:
    """In each TensorRT segment the first node whose size only inputs tell that it cannot take."""
    members: dict[int, list[fx.Node]] = {}
    for node in filter(groups.__contains__, module.graph.nodes):
        members.setdefault(groups[node], []).append(node)
    found: dict[fx.Node, Refusal] = {}
    for nodes in members.values():
        known = Symbols((n.name, n.meta["val"]) for n in _needs(nodes) if n.op != "get_attr")
        for node in filter(_computes, nodes):
            if reason := _untold_size(module, node, known, target):
                found[node] = Refusal(node.name, str(node.target), reason, where(node))
                break
    return found


def _untold_size(
    module: fx.GraphModule, node: fx.Node, known: Symbols, target: Target
) -> str | None:
    for symbol in sorted(_symbols(node), key=str):
        carriers = [] if known.knows(symbol) else _carriers(module, symbol)
        reasons = [unheld(carrier.meta["val"], target) for carrier in carriers]
        if reasons and all(reasons):
            return f"only {carriers[0].name} tells the size {symbol}: {reasons[0]}"
    return None


def _large_enough(
    groups: dict[fx.Node, int],
    min_block_size: int,
    refusals: dict[fx.Node, Refusal],
) -> dict[fx.Node, int]:
    sizes = Counter(group for node, group in groups.items() if _computes(node))
    whole = len(sizes) == 1 and not refusals
    if whole:
        return groups
    small = {group for group in set(groups.values()) if sizes[group] < min_block_size}
    for node, group in groups.items():
        if group in small and _computes(node):
            size = "1 operator" if sizes[group] == 1 else f"{sizes[group]} operators"
            reason = f"its segment of {size} is below --min-block-size"
            refusals[node] = Refusal(node.name, str(node.target), reason, where(node))
    return {node: group for node, group in groups.items() if group not in small}


def _schedule(
    module: fx.GraphModule, groups: Mapping[fx.Node, int], method: str, target: Target
) -> list[PlannedSegment]:
    """Orders the work: engines as soon as they can run, PyTorch in as few segments as possible."""
    work = [n for n in module.graph.nodes if n.op == "call_function" and not _is_size(n)]
    done = {n for n in module.graph.nodes if n.op in ("placeholder", "get_attr")}
    members: dict[int, list[fx.Node]] = {}
    for node in work:
        if node in groups:
            members.setdefault(groups[node], []).append(node)
    waiting = [n for n in work if n not in groups]
    steps: list[tuple[Kind, list[fx.Node], list[fx.Node]]] = []

    def take(kind: Kind, nodes: list[fx.Node]) -> None:
        steps.append((kind, nodes, _inputs(module, nodes, target if kind == "tensorrt" else None)))
        done.update(nodes)

    while members or waiting:
        ready = [g for g, nodes in members.items() if _needs(nodes) <= done]
        if ready:
            take("tensorrt", members.pop(ready[0]))
            continue
        batch: dict[fx.Node, None] = {}
        for node in waiting:
            if all(n in done or n in batch for n in _reads(node)):
                batch[node] = None
        assert batch, "the partitions depend on each other"
        waiting = [n for n in waiting if n not in batch]
        take("torch", list(batch))
    read = set(returned(module.graph)).union(*(inputs for _, _, inputs in steps))
    return [
        _segment(module, f"{method}_{i}", kind, nodes, inputs, [n for n in nodes if n in read])
        for i, (kind, nodes, inputs) in enumerate(steps)
    ]


def _is_size(node: fx.Node) -> bool:
    """Whether a node is a size that only the data tells; such nodes are copied, never passed."""
    return isinstance(node.meta.get("val"), SIZES)


def _reads(node: fx.Node) -> list[fx.Node]:
    """The tensors a node reads, sizes traced back to the tensors they are of."""
    return [
        source
        for argument in node.all_input_nodes
        for source in (_reads(argument) if _is_size(argument) else [argument])
    ]


def _needs(nodes: list[fx.Node]) -> set[fx.Node]:
    return {n for node in nodes for n in _reads(node)} - set(nodes)


def _inputs(module: fx.GraphModule, nodes: list[fx.Node], target: Target | None) -> list[fx.Node]:
    """The tensors a segment takes: what it reads, and graph inputs it needs only for a size.

    Of these the first that ``target`` can hold, where there is one.
    """
    needed = {n for n in _needs(nodes) if n.op != "get_attr"}
    inputs = [n for n in module.graph.nodes if n in needed]
    known = Symbols((n.name, n.meta["val"]) for n in inputs)
    for symbol in sorted({s for node in nodes for s in _symbols(node)}, key=str):
        if known.knows(symbol):
            continue
        carriers = _carriers(module, symbol)
        held = (n for n in carriers if target is None or unheld(n.meta["val"], target) is None)
        carrier = next(held, None)
        if carrier is not None and carrier not in inputs:
            inputs.append(carrier)
    return inputs


def _carriers(module: fx.GraphModule, symbol: sympy.Symbol) -> list[fx.Node]:
    """The graph inputs whose shapes tell a size."""
    return [n for n in module.graph.find_nodes(op="placeholder") if symbol in _symbols(n)]


def _segment(
    module: fx.GraphModule,
    name: str,
    kind: Kind,
    nodes: list[fx.Node],
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
        for node in nodes:
            for argument in node.all_input_nodes:
                _copy_source(graph, argument, copies)
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].name = node.name
        graph.output(tuple(copies[n] for n in outputs))
        sub = fx.GraphModule(module, graph)
        if kind == "torch":
            expand_composites(sub.graph)
            sub.recompile()
    return PlannedSegment(
        name, kind, sub, tuple(n.name for n in inputs), tuple(n.name for n in outputs)
    )


def _copy_source(graph: fx.Graph, node: fx.Node, copies: dict[fx.Node, fx.Node]) -> None:
    """Copies a constant or a size into a segment, with the sizes it is made of."""
    if node in copies:
        return
    for argument in node.all_input_nodes:
        _copy_source(graph, argument, copies)
    copies[node] = graph.node_copy(node, copies.__getitem__)


def _symbols(node: fx.Node) -> set[sympy.Symbol]:
    """The size symbols of a node's result and of the sizes among its arguments."""
    found: set[sympy.Symbol] = set()
    for value in (node.meta.get("val"), node.args, tuple(node.kwargs.values())):
        for expression in _expressions(value):
            found |= expression.free_symbols
    return found.union(*(_symbols(n) for branch in branches(node) for n in branch.graph.nodes))


def _expressions(value: Any) -> list[sympy.Expr]:
    if isinstance(value, torch.SymInt):
        return [value.node.expr]
    if isinstance(value, torch.Tensor):
        sizes: Sequence[Any] = value.shape
        return [s.node.expr for s in sizes if isinstance(s, torch.SymInt)]
    if isinstance(value, list | tuple):
        return [e for v in value for e in _expressions(v)]
    return []
