# SPDX-License-Identifier: Apache-2.0
"""Which operators a precision plan loses most at, and how few of them need to be pinned.

The graph runs in the plan's types and in the model's; an operator's own part of the error is what
it does not inherit from its operands. Those that add most are pinned, more and more of them, until
the budget is kept or nothing gets better.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from trtpack_runtime.smoke import full_float32

from ..lowering import Lowered
from ..lowering.autocast import retyped
from ..node_places import where
from ..options import Pin
from ..precision.plan import Request, Sample
from ..precision.ranges import Range, floats
from ..precision.running import run_graph

MOST_BYTES = 1 << 30
"""Values of the graph that are kept for comparison at one time."""
COUNTS = (1, 2, 4, 8, 16)
"""How many operators are pinned, attempt by attempt."""


@dataclass(frozen=True)
class Guilty:
    """An operator in a small type, and the part of the error that is its own."""

    node: str
    where: str
    added: float

    @property
    def pin(self) -> Pin:
        """The pin that lets it compute in float32."""
        return Pin(re.escape(self.node), "fp32")


@dataclass(frozen=True)
class Mended:
    """Pins that were tried, what is left of ``badness`` with them, and whether that is enough."""

    guilty: tuple[Guilty, ...]
    badness: float
    enough: bool


def guilty(lowered: Lowered, sample: Sample) -> list[Guilty]:
    """The operators that compute in a small type, by what they add to the error."""
    assert lowered.uncast is not None
    errors = _errors(lowered.uncast, lowered.captured.graph_module, sample)
    small = _small(lowered)
    found = []
    for node in lowered.uncast.graph.nodes:
        if node.name not in small or node.name not in errors:
            continue
        inherited = max((errors.get(n.name, 0.0) for n in node.all_input_nodes), default=0.0)
        own = errors[node.name]
        if not math.isfinite(own):
            added = math.inf if math.isfinite(inherited) else 0.0
        else:
            added = math.sqrt(max(own**2 - inherited**2, 0.0)) if math.isfinite(inherited) else 0.0
        if added:
            found.append(Guilty(node.name, where(node), added))
    return sorted(found, key=lambda g: -g.added)


def mend(
    lowered: Lowered,
    request: Request,
    sample: Sample,
    badness: Callable[[fx.GraphModule], tuple[float, bool]],
) -> Mended | None:
    """The fewest pins, of those that were tried, with which ``badness`` answers enough; else the
    best. It answers a graph's distance from the model, and whether that is within the budget."""
    assert lowered.uncast is not None
    ranked = guilty(lowered, sample)
    small = _small(lowered)
    best: Mended | None = None
    for count in COUNTS:
        chosen = tuple(_with_readers(lowered.uncast, ranked[:count], small))
        if best is not None and len(chosen) == len(best.guilty):
            break
        pins = (*request.pins, *(one.pin for one in chosen))
        graph = retyped(lowered.uncast, replace(request, pins=pins))
        figure, enough = badness(graph)
        if chosen and (best is None or enough or figure < best.badness):
            best = Mended(chosen, figure, enough)
        if enough or not chosen:
            break
    return best


def _small(lowered: Lowered) -> set[str]:
    return {row.node for row in lowered.plan.rows if row.precision in ("fp16", "bf16")}


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
    """The relative L2 error of every value that both graphs have."""
    common = {node.name for node in small.graph.nodes if node.op == "call_function"}
    names = [n.name for n in wide.graph.nodes if n.op == "call_function" and n.name in common]
    sizes = {n.name: _size(n) for n in wide.graph.nodes}
    errors: dict[str, float] = {}
    for chunk in _chunks(names, sizes):
        kept: dict[str, list[torch.Tensor]] = {}

        def keep(node: fx.Node, value: Any, kept: Any = kept, chunk: Any = chunk) -> Any:
            if node.name in chunk:
                kept[node.name] = [t.detach().clone() for t in floats(value)]
            return value

        def compare(node: fx.Node, value: Any, kept: Any = kept) -> Any:
            for got, wanted in zip(floats(value), kept.pop(node.name, []), strict=False):
                error = _relative(got, wanted)
                errors[node.name] = max(errors.get(node.name, 0.0), error)
            return value

        with full_float32():
            run_graph(wide, sample, keep)
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
