# SPDX-License-Identifier: Apache-2.0
"""Divides a lowered graph: what engines run, what PyTorch runs, and why."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import sympy
import torch
from torch import fx
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from .branches import branches
from .capture import returned
from .converters.node import Refusal, leaves, refusal, unheld
from .converters.symbols import Symbols, told_by_data
from .costs import Chosen, CostModel, choose, is_fusible, machine_of, works
from .node_places import module_path, where
from .options import SizeRange
from .segments import (
    Kind,
    Piece,
    Plan,
    PlannedSegment,
    Prediction,
    carriers_of,
    computes,
    cut,
    is_size,
    needs,
    reads_of,
    symbols_of,
)
from .target import Target

TOO_SMALL = "is below --min-block-size"
"""How the reason ends for what is kept in PyTorch because its segment is small."""
_FASTER = "PyTorch is predicted to be faster than an engine of it with what is beside it"

__all__ = ["Kind", "Plan", "PlannedSegment", "Prediction", "partition"]


def partition(
    module: fx.GraphModule,
    target: Target,
    *,
    method: str = "forward",
    torch_ops: Iterable[str] = (),
    torch_modules: Iterable[str] = (),
    trt_ops: Iterable[str] = (),
    min_block_size: int | None = 1,
    divided: bool | None = None,
    ranges: Mapping[str, SizeRange] | None = None,
    refused: Mapping[str, str] | None = None,
    kernels: Mapping[str, int] | None = None,
) -> Plan:
    """Tags every node engine or PyTorch and cuts the graph where the tag changes.

    A graph that an engine takes whole is one segment. Where it splits, ``min_block_size`` None
    chooses by cost what engines run, sizes at the optimum of ``ranges``; a number makes engines of
    as much as can be, and gives PyTorch those of fewer operators.

    ``torch_ops`` names operators kept in PyTorch (``aten.add.Tensor``, or ``aten.add`` for every
    overload), ``torch_modules`` regular expressions that match their modules' paths, or those of
    modules around them, whole; ``trt_ops`` operators that run on engines whatever that costs.
    ``refused`` gives nodes that a later stage could not do, with the reason, and ``kernels`` how
    many of TensorRT's nodes take, where a later stage counted them.

    A target without TensorRT gets one PyTorch segment, unless it is ``divided``: then AOTInductor
    makes its engines, and what is kept in PyTorch runs operator by operator. None says that
    TensorRT's targets are.
    """
    with_tensorrt = target.engine_kind in ("tensorrt", "tensorrt-rtx")
    work = [n for n in module.graph.nodes if n.op == "call_function" and not is_size(n)]
    outputs = returned(module.graph)
    constants = {n.name: str(n.target) for n in outputs if n.op == "get_attr"}
    refusals: dict[fx.Node, Refusal] = {}
    if with_tensorrt if divided is None else divided:
        kept = _Kept(tuple(torch_ops), tuple(torch_modules))
        refusals = _refusals(module, target if with_tensorrt else None, kept, refused or {})
    elif not with_tensorrt:
        pieces = [Piece("torch", work)] if work else []
        return _plan(module, pieces, method, target, constants, ())
    kind: Kind = "tensorrt" if with_tensorrt else "torch"
    prediction = None
    if min_block_size is not None:
        wanted = {n for n in work if any(named(op, (str(n.target),)) for op in trt_ops)}
        groups = _groups_of_size(module, min_block_size, refusals, target, wanted)
        pieces = _in_turns(work, groups, kind)
    else:
        division = _Division(module, target, ranges or {}, tuple(trt_ops), kernels)
        pieces, prediction = division.pieces(refusals)
    plan = _plan(module, pieces, method, target, constants, tuple(refusals.values()))
    return replace(plan, prediction=prediction)


def _plan(
    module: fx.GraphModule,
    pieces: list[Piece],
    method: str,
    target: Target,
    constants: Mapping[str, str],
    refusals: tuple[Refusal, ...],
) -> Plan:
    outputs = tuple(n.name for n in returned(module.graph))
    return Plan(tuple(cut(module, pieces, method, target)), outputs, constants, refusals)


class _Kept:
    """What the user keeps in PyTorch."""

    def __init__(self, operators: tuple[str, ...], modules: tuple[str, ...]) -> None:
        self.operators, self.modules = operators, [re.compile(pattern) for pattern in modules]

    def reason(self, node: fx.Node) -> str | None:
        within = [str(n.target) for branch in branches(node) for n in branch.graph.nodes]
        if any(named(op, (str(node.target), *within)) for op in self.operators):
            return "kept in PyTorch by --torch-op"
        if any(within_module(pattern, module_path(node)) for pattern in self.modules):
            return "kept in PyTorch by --torch-module"
        return None


def named(operator_name: str, targets: Iterable[str]) -> bool:
    """Whether any of ``targets`` is an operator, or an overload of it."""
    return any(t == operator_name or t.startswith(operator_name + ".") for t in targets)


def within_module(pattern: re.Pattern[str], path: str) -> bool:
    """Whether a pattern matches a module's path, or that of a module around it, whole."""
    parts = path.split(".") if path else []
    return any(pattern.fullmatch(".".join(parts[: n + 1])) for n in range(len(parts)))


class _Division:
    """Divides by cost."""

    def __init__(
        self,
        module: fx.GraphModule,
        target: Target,
        ranges: Mapping[str, SizeRange],
        trt_ops: tuple[str, ...],
        kernels: Mapping[str, int] | None = None,
    ) -> None:
        self.module, self.target = module, target
        self.with_tensorrt = target.engine_kind != "inductor"
        every = [n for n in module.graph.nodes if n.op == "call_function" and not is_size(n)]
        self.unpacked: dict[fx.Node, list[fx.Node]] = {}
        for node in every:
            if node.target is operator.getitem:
                self.unpacked.setdefault(_producer(node), []).append(node)
        self.nodes = [n for n in every if n.target is not operator.getitem]
        self.order = {node: i for i, node in enumerate(module.graph.nodes)}
        known = set(self.nodes)
        self.reads = {n: {p for p in map(_producer, reads_of(n)) if p in known} for n in self.nodes}
        self.wanted = {n for n in self.nodes if any(named(op, (str(n.target),)) for op in trt_ops)}
        readers: dict[fx.Node, set[fx.Node]] = {n: set() for n in self.nodes}
        for node, sources in self.reads.items():
            for source in sources:
                readers[source].add(node)
        self.model = CostModel(
            works(module, ranges, kernels),
            readers,
            {_producer(n) for n in returned(module.graph)},
            machine_of(target),
            "tensorrt" if self.with_tensorrt else "inductor",
            compiles=self.with_tensorrt,
            compiles_here=target.compiles_here,
        )

    def pieces(self, refusals: dict[fx.Node, Refusal]) -> tuple[list[Piece], Prediction | None]:
        """The segments; ``refusals`` gains what TensorRT cannot have for where it is cut, and what
        is not worth an engine."""
        kind: Kind = "tensorrt" if self.with_tensorrt else "torch"
        if not refusals:
            groups = dict.fromkeys((n for n in self.order if n in self.reads), 0)
            refusals |= self._cannot(groups)
        if not refusals:
            every = sorted((*self.nodes, *self._unpacked(self.nodes)), key=self.order.__getitem__)
            return ([Piece(kind, every)] if every else []), None
        chosen = self._chosen(refusals)
        while found := self._cannot(
            {
                node: i
                for i, step in enumerate(chosen.steps)
                if step.accelerated
                for node in (*step.nodes, *self._unpacked(step.nodes))
            }
        ):
            refusals |= found
            chosen = self._chosen(refusals)
        for node in filter(chosen.left.__contains__, self.nodes):
            refusals[node] = Refusal(node.name, str(node.target), _FASTER, where(node))
        pieces = [
            Piece(
                kind if step.accelerated else "torch",
                sorted((*step.nodes, *self._unpacked(step.nodes)), key=self.order.__getitem__),
                compiled=by != "eager",
                predicted_us=us,
            )
            for step, (by, us) in zip(chosen.steps, chosen.runs, strict=True)
        ]
        return pieces, Prediction(chosen.predicted_us, chosen.most_us, chosen.none_us)

    def _chosen(self, refusals: Mapping[fx.Node, Refusal]) -> Chosen:
        able = {n for n in self.nodes if n not in refusals}
        return choose(self.model, self.nodes, self.reads, able, self.wanted & able)

    def _cannot(self, groups: Mapping[fx.Node, int]) -> dict[fx.Node, Refusal]:
        found = _cut_off(self.module, groups)
        if found or not self.with_tensorrt:
            return found
        return _untold(self.module, groups, self.target)

    def _unpacked(self, nodes: Iterable[fx.Node]) -> list[fx.Node]:
        return [item for node in nodes for item in self.unpacked.get(node, ())]


def _producer(node: fx.Node) -> fx.Node:
    """The operator that a node unpacks a result of; else itself."""
    while node.target is operator.getitem:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node = source
    return node


class _Support(OperatorSupportBase):
    def __init__(self, refusals: Mapping[fx.Node, Refusal]) -> None:
        self.refusals = refusals

    def is_node_supported(self, submodules: Mapping[str, torch.nn.Module], node: fx.Node) -> bool:
        if node.target is operator.getitem:
            return self.is_node_supported(submodules, node.args[0])  # type: ignore[arg-type]  # getitem reads a node
        if is_size(node):
            return node.op == "call_function" and self.refusals.keys().isdisjoint(reads_of(node))
        return computes(node) and node not in self.refusals


def _refusals(
    module: fx.GraphModule, target: Target | None, kept: _Kept, refused: Mapping[str, str]
) -> dict[fx.Node, Refusal]:
    """Every node that no engine runs, and why; a target is one with TensorRT."""
    symbols = Symbols.of(module)
    found: dict[fx.Node, Refusal] = {}
    for node in module.graph.nodes:
        symbols.measured(node)
        if not computes(node):
            continue
        reason = kept.reason(node) or refused.get(node.name)
        if target is not None:
            reason = reason or refusal(node, target, symbols)
        if reason:
            found[node] = Refusal(node.name, str(node.target), reason, where(node))
    return found


def _groups_of_size(
    module: fx.GraphModule,
    min_block_size: int,
    refusals: dict[fx.Node, Refusal],
    target: Target,
    wanted: Collection[fx.Node],
) -> dict[fx.Node, int]:
    """As much as can be on engines, in segments of that many operators; ``refusals`` gains the
    rest."""
    groups = _large_enough(_groups(module, refusals), min_block_size, refusals, wanted)
    with_tensorrt = target.engine_kind != "inductor"
    while found := (
        _cut_off(module, groups) or (_untold(module, groups, target) if with_tensorrt else {})
    ):
        refusals |= found
        groups = _large_enough(_groups(module, refusals), min_block_size, refusals, wanted)
    return groups


def _groups(module: fx.GraphModule, refusals: Mapping[fx.Node, Refusal]) -> dict[fx.Node, int]:
    """Node -> TensorRT segment, by torch's own partitioner; unpacking goes with its producer."""
    partitioner = CapabilityBasedPartitioner(
        module, _Support(refusals), allows_single_node_partition=True
    )
    groups: dict[fx.Node, int] = {}
    for i, found in enumerate(partitioner.propose_partitions()):
        for node in found.nodes:
            if not is_size(node):
                groups[node] = i
    for node in module.graph.nodes:
        if node.target is operator.getitem:
            producer = node.args[0]
            groups.pop(node, None)
            if producer in groups:
                groups[node] = groups[producer]
    return groups


def _cut_off(module: fx.GraphModule, groups: Mapping[fx.Node, int]) -> dict[fx.Node, Refusal]:
    """Nodes on engines that need a size which data outside of their segment tells."""
    told_in: dict[sympy.Symbol, int | None] = {}
    found: dict[fx.Node, Refusal] = {}
    for node in module.graph.nodes:
        for value in leaves(node.meta.get("val")):
            for size in filter(None, map(told_by_data, value.shape)):
                told_in.setdefault(size, groups.get(node))
        if node not in groups or not computes(node):
            continue
        needed = set().union(*(symbols_of(n) for n in (node, *node.all_input_nodes)))
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
        known = Symbols((n.name, n.meta["val"]) for n in needs(nodes) if n.op != "get_attr")
        for node in filter(computes, nodes):
            if reason := _untold_size(module, node, known, target):
                found[node] = Refusal(node.name, str(node.target), reason, where(node))
                break
    return found


def _untold_size(
    module: fx.GraphModule, node: fx.Node, known: Symbols, target: Target
) -> str | None:
    for symbol in sorted(symbols_of(node), key=str):
        carriers = [] if known.knows(symbol) else carriers_of(module, symbol)
        reasons = [unheld(carrier.meta["val"], target) for carrier in carriers]
        if reasons and all(reasons):
            return f"only {carriers[0].name} tells the size {symbol}: {reasons[0]}"
    return None


def _large_enough(
    groups: dict[fx.Node, int],
    min_block_size: int,
    refusals: dict[fx.Node, Refusal],
    wanted: Collection[fx.Node],
) -> dict[fx.Node, int]:
    sizes = Counter(group for node, group in groups.items() if computes(node))
    whole = len(sizes) == 1 and not refusals
    if whole:
        return groups
    kept = {groups[node] for node in wanted if node in groups}
    small = {g for g in set(groups.values()) - kept if sizes[g] < min_block_size}
    for node, group in groups.items():
        if group in small and computes(node):
            size = "1 operator" if sizes[group] == 1 else f"{sizes[group]} operators"
            reason = f"its segment of {size} {TOO_SMALL}"
            refusals[node] = Refusal(node.name, str(node.target), reason, where(node))
    return {node: group for node, group in groups.items() if group not in small}


def _in_turns(work: list[fx.Node], groups: Mapping[fx.Node, int], kind: Kind) -> list[Piece]:
    """Orders the work: engines as soon as they can run, PyTorch in as few segments as possible."""
    done: set[fx.Node] = set()
    known = set(work)
    members: dict[int, list[fx.Node]] = {}
    for node in work:
        if node in groups:
            members.setdefault(groups[node], []).append(node)
    waiting = [n for n in work if n not in groups]
    pieces: list[Piece] = []

    def take(piece: Piece) -> None:
        pieces.append(piece)
        done.update(piece.nodes)

    while members or waiting:
        ready = [g for g, nodes in members.items() if needs(nodes) & known <= done]
        if ready:
            take(Piece(kind, members.pop(ready[0])))
            continue
        batch: dict[fx.Node, None] = {}
        for node in waiting:
            if all(n in done or n in batch or n not in known for n in reads_of(node)):
                batch[node] = None
        assert batch, "the partitions depend on each other"
        waiting = [n for n in waiting if n not in batch]
        take(Piece("torch", list(batch), compiled=kind == "tensorrt" and is_fusible(batch)))
    return pieces
