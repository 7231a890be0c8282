# SPDX-License-Identifier: Apache-2.0
"""Which operators a precision plan loses most at, and how few of them need to be pinned.

The graph runs in the plan's types and in the model's; an operator's own part of the error is what
it does not inherit from its operands. With a quantized product goes the rounding of what it reads.
Those that add most are pinned, more and more of them, until the budget is kept or nothing gets
better.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from trtpack_runtime.tf32 import full_float32

from ..capture import constant_of
from ..lowering import Lowered
from ..lowering.autocast import copied, retyped
from ..node_places import where
from ..options import Pin, PinName
from ..precision.plan import Request, Sample
from ..precision.ranges import Range, floats
from ..precision.running import run_graph
from ..quantization.operators import DEQUANTIZE, FAKE_QUANTIZE, RANGES, spread

aten = torch.ops.aten
MOST_BYTES = 1 << 30
"""Values of the graph that are kept for comparison at one time."""
COUNTS = (1, 2, 4, 8, 16)
"""How many operators are pinned, attempt by attempt."""
_FEW = frozenset(map(str.lower, RANGES))
"""What the plan says of products that read numbers of few bits."""


@dataclass(frozen=True)
class Guilty:
    """An operator in a small type, the part of the error that is its own, and what it had better
    compute in."""

    node: str
    where: str
    added: float
    better: PinName = "fp32"

    @property
    def pin(self) -> Pin:
        """The pin that lets it."""
        return Pin(re.escape(self.node), self.better)


@dataclass(frozen=True)
class Judged:
    """How far a graph misses what is asked of it, 0 where it keeps all, and how to say that:
    ``cosine of logits is 0.98213``."""

    excess: float
    told: str


@dataclass(frozen=True)
class Mended:
    """Operators to pin, and what that leaves; None where it was not measured."""

    guilty: tuple[Guilty, ...]
    left: Judged | None = None

    @property
    def is_enough(self) -> bool:
        """Whether a graph with these pins keeps all."""
        return self.left is not None and not self.left.excess


def guilty(lowered: Lowered, sample: Sample) -> list[Guilty]:
    """The operators that compute in a small type or in few bits, by what they add to the error."""
    assert lowered.uncast is not None
    errors = _errors(lowered.uncast, lowered.captured.graph_module, sample)
    small, few = _small(lowered), _few(lowered)
    found = []
    for node in lowered.uncast.graph.nodes:
        if node.name in few:
            added = math.hypot(_own(node, errors), *map(_of_stored, node.all_input_nodes))
            found.append(Guilty(node.name, where(node), added, "fp16"))
        elif node.name in small:
            found.append(Guilty(node.name, where(node), _own(node, errors)))
    return sorted((one for one in found if one.added), key=lambda one: -one.added)


def mend(
    lowered: Lowered,
    request: Request,
    sample: Sample,
    judge: Callable[[fx.GraphModule], Judged],
) -> Mended | None:
    """The fewest pins, of those that were tried, with which a graph keeps all; else the best, or
    None where all are as bad as none. Weights that are stored in few bits cannot be tried here."""
    assert lowered.uncast is not None
    ranked = guilty(lowered, sample)
    small, few = _small(lowered), _few(lowered)
    if not _can_be_undone(lowered):
        worst = tuple(one for one in ranked if one.node in few)[:3]
        return Mended(worst) if worst else None
    best: Mended | None = None
    least, tried = judge(lowered.captured.graph_module).excess, 0
    for count in COUNTS:
        chosen = tuple(_with_readers(lowered.uncast, ranked[:count], small))
        if len(chosen) == tried:
            break
        tried = len(chosen)
        pins = (*request.pins, *(one.pin for one in chosen))
        wider = _unrounded(lowered.uncast, {one.node for one in chosen} & few)
        left = judge(retyped(wider, replace(request, pins=pins)))
        if not left.excess or left.excess < least:
            best, least = Mended(chosen, left), left.excess
        if not left.excess:
            break
    return best


def in_float32(lowered: Lowered, request: Request) -> fx.GraphModule | None:
    """The graph with everything in float32; None where it has only few bits of its weights."""
    assert lowered.uncast is not None
    if not _can_be_undone(lowered):
        return None
    made = retyped(lowered.uncast, replace(request, precision="fp32", pins=()))
    if lowered.plan.quantization is not None:
        # the build quantizes no model that came so: all its rounding is the build's
        for node in made.graph.find_nodes(op="call_function", target=FAKE_QUANTIZE):
            node.replace_all_uses_with(node.args[0])
        made.graph.eliminate_dead_code()
    return made


def _can_be_undone(lowered: Lowered) -> bool:
    """Whether the graph still has the numbers that the build quantized."""
    assert lowered.uncast is not None
    stored = any(node.target is DEQUANTIZE for node in lowered.uncast.graph.nodes)
    return not (stored and _few(lowered))


def _small(lowered: Lowered) -> set[str]:
    return {row.node for row in lowered.plan.rows if row.precision in ("fp16", "bf16")}


def _few(lowered: Lowered) -> set[str]:
    """The products that the build quantized; none of a model that came so."""
    if lowered.plan.quantization is None:
        return set()
    return {row.node for row in lowered.plan.rows if not _FEW.isdisjoint(row.precision.split("+"))}


def _own(node: fx.Node, errors: Mapping[str, float]) -> float:
    """What a node adds to the error of what it reads, rounding to few bits included."""
    nodes = node.all_input_nodes
    read = [n.all_input_nodes[0] if n.target is FAKE_QUANTIZE else n for n in nodes]
    inherited = max((errors.get(n.name, 0.0) for n in read), default=0.0)
    own = errors.get(node.name, 0.0)
    if not math.isfinite(inherited):
        return 0.0
    return math.sqrt(max(own**2 - inherited**2, 0.0))


def _of_stored(node: fx.Node) -> float:
    """What few bits take of stored weights, whose own numbers are gone: what even rounding takes on
    average. 0 for any other node."""
    if node.target is not DEQUANTIZE:
        return 0.0
    stored, scale = constant_of(node.args[0]), constant_of(node.args[1])
    assert stored is not None
    assert scale is not None
    steps = spread(scale, tuple(stored.shape), node.args[2])  # type: ignore[arg-type]  # an axis
    size = (stored.float() * steps).square().mean()
    return float((steps.square().mean() / 12 / size.clamp(min=1e-30)).sqrt())


def _unrounded(uncast: fx.GraphModule, products: Collection[str]) -> fx.GraphModule:
    """The graph where some products read what others read in few bits."""
    if not products:
        return uncast
    module = copied(uncast)
    module.meta |= uncast.meta
    for node in reversed(module.graph.nodes):
        if node.name in products or _is_left(node, products):
            for source in node.all_input_nodes:
                if source.target is FAKE_QUANTIZE:
                    node.replace_input_with(source, source.args[0])
    module.graph.eliminate_dead_code()
    return module


def _is_left(node: fx.Node, products: Collection[str]) -> bool:
    """Whether a join or a residual reads few bits for products only that do so no longer."""
    if node.target is aten.cat.default:
        return not any(user.target is FAKE_QUANTIZE and user.users for user in node.users)
    residual = node.target is aten.add.Tensor
    return residual and any(source.name in products for source in node.all_input_nodes)


def _with_readers(
    graph: fx.GraphModule, chosen: Sequence[Guilty], small: Collection[str]
) -> Iterator[Guilty]:
    """Operators, and all that read what is too large for a small type: no cast may come between."""
    ranges: Mapping[str, Range] = graph.meta["ranges"]
    nodes = {node.name: node for node in graph.graph.nodes}
    seen = {one.node for one in chosen}
    waiting = list(chosen)
    while waiting:
        one = waiting.pop(0)
        yield one
        if not ranges.get(one.node, Range()).overflows(torch.float16):
            continue
        for reader in nodes[one.node].users:
            if reader.name in small and reader.name not in seen:
                seen.add(reader.name)
                waiting.append(Guilty(reader.name, where(reader), 0.0))


def _errors(wide: fx.GraphModule, small: fx.GraphModule, sample: Sample) -> Mapping[str, float]:
    """The relative L2 error of every value that both graphs have; none is rounded to few bits in
    the first."""
    common = {node.name for node in small.graph.nodes if node.op == "call_function"}
    names = [n.name for n in wide.graph.nodes if n.op == "call_function" and n.name in common]
    sizes = {n.name: _size(n) for n in wide.graph.nodes}
    errors: dict[str, float] = {}
    for chunk in _chunks(names, sizes):
        kept: dict[str, list[torch.Tensor]] = {}
        unrounded: dict[str, Any] = {}

        def prepare(node: fx.Node, arguments: Any, unrounded: Any = unrounded) -> Any:
            if node.target is FAKE_QUANTIZE:
                unrounded[node.name] = arguments[0]
            return arguments

        def keep(
            node: fx.Node,
            value: Any,
            kept: Any = kept,
            chunk: Any = chunk,
            unrounded: Any = unrounded,
        ) -> Any:
            value = unrounded.pop(node.name, value)
            if node.name in chunk:
                kept[node.name] = [t.detach().clone() for t in floats(value)]
            return value

        def compare(node: fx.Node, value: Any, kept: Any = kept) -> Any:
            for got, wanted in zip(floats(value), kept.pop(node.name, []), strict=False):
                error = _relative(got, wanted)
                errors[node.name] = max(errors.get(node.name, 0.0), error)
            return value

        with full_float32():
            run_graph(wide, sample, keep, prepare)
            run_graph(small, sample, compare)
    return errors


def _chunks(names: list[str], sizes: Mapping[str, int]) -> Iterator[set[str]]:
    chunk: set[str] = set()
    total = 0
    for name in names:
        if chunk and total + sizes[name] > MOST_BYTES:
            yield chunk
            chunk, total = set(), 0
        chunk.add(name)
        total += sizes[name]
    if chunk:
        yield chunk


def _size(node: fx.Node) -> int:
    """The bytes of a result at the sizes it was captured with."""
    total = 0
    for value in floats(node.meta.get("val")):
        count = value.element_size()
        for size in value.shape:
            count *= int(size.node.hint or 1) if isinstance(size, torch.SymInt) else size
        total += count
    return total


def _relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    a, b = got.double(), wanted.double()
    finite = b.isfinite()
    if got.shape != wanted.shape or not bool(a[finite].isfinite().all()):
        return math.inf
    norm = float(b[finite].norm())
    error = float((a[finite] - b[finite]).norm())
    return error / norm if norm else (0.0 if error == 0 else math.inf)
