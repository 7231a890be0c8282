# SPDX-License-Identifier: Apache-2.0
"""``trtpack.explain(model, *inputs)``: what ``torch.compile(backend="trtpack")`` would make of it.

The model runs once, as Dynamo divides it; every graph is lowered and partitioned, and run by
PyTorch. No engine is built.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from trtpack.engine_options import TENSORRT_KINDS, kind_for
from trtpack.segments import PlannedSegment

from .graphs import Graph, computes, device_of, gives_gradients, line_of, traced
from .making import Workshop, planned, workshop
from .settings import options_of

_SHOWN = 4
"""So many operators of a segment are named."""


@dataclass(frozen=True)
class Part:
    """A segment: the kind of engine that would run it, and its operators with how often each."""

    name: str
    kind: str
    operators: Mapping[str, int]


@dataclass(frozen=True)
class Explained:
    """A graph: the user's line it begins with, its segments, and what stays in PyTorch and why.

    ``problem`` says why none of it would run on an engine, None where some does.
    """

    begins: str
    segments: tuple[Part, ...]
    refused: tuple[tuple[str, str], ...]
    problem: str | None = None


@dataclass(frozen=True)
class Break:
    """Where Dynamo ended a graph: the user's line, and the reason."""

    where: str
    reason: str


@dataclass(frozen=True)
class Explanation:
    """The graphs of a model in the order they were found; as text, what ``explain`` printed."""

    target: str
    graphs: tuple[Explained, ...]
    breaks: tuple[Break, ...]

    def __str__(self) -> str:
        graphs, breaks = _count(len(self.graphs), "graph"), _count(len(self.breaks), "graph break")
        lines = [f"{graphs} for {self.target}, {breaks}"]
        for number, graph in enumerate(self.graphs):
            lines += ["", f"graph {number}" + (f" from {graph.begins} on" if graph.begins else "")]
            if graph.problem is not None:
                lines.append(f"  runs in PyTorch: {graph.problem}")
            lines += [f"  {_segment(part)}" for part in graph.segments]
            lines += [f"  {operator} stays in PyTorch: {why}" for operator, why in graph.refused]
        for number, found in enumerate(self.breaks):
            at = f" at {found.where}" if found.where else ""
            lines += ["", f"break {number}{at}: {found.reason}"]
        return "\n".join(lines)


def explain(
    model: Callable[..., Any],
    *inputs: Any,
    options: Mapping[str, Any] | None = None,
    dynamic: bool | None = None,
    **named_inputs: Any,
) -> Explanation:
    """Prints, and answers, which graphs ``torch.compile`` would find, why it would end each, and
    which segments would run on which kind of engine.

    ``options`` and ``dynamic`` are those of ``torch.compile``; ``"target"`` may be any. The model
    runs once, and afterwards Dynamo has forgotten what it compiled before.

    Raises:
        ConfigError: options that are unknown or contradict each other.
    """
    settings = options_of(options)
    graphs: list[Explained] = []
    breaks: list[Break] = []
    shops: list[Workshop] = []

    def record(module: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        shops.append(workshop(settings, device_of(example_inputs).type == "cuda", True))
        if computes(module):
            graphs.append(_explained(module, example_inputs, shops[-1]))
        reason: Any = getattr(module, "compile_subgraph_reason", None)
        if reason is not None and reason.graph_break:
            breaks.append(Break(_where(reason.user_stack), _reason(reason.reason)))
        return module.forward

    torch.compiler.reset()
    try:
        with torch.no_grad():
            torch.compile(model, backend=record, dynamic=dynamic)(*inputs, **named_inputs)
    finally:
        torch.compiler.reset()
    target = (
        shops[0].target if shops else workshop(settings, torch.cuda.is_available(), True).target
    )
    found = Explanation(target.device, tuple(graphs), tuple(breaks))
    sys.stdout.write(f"{found}\n")
    return found


def _explained(module: fx.GraphModule, given: Sequence[Any], shop: Workshop) -> Explained:
    found: list[tuple[Graph, list[Any]]] = []

    def kept(graph: Graph, values: list[Any]) -> Callable[..., Any]:
        found.append((graph, values))
        return graph.module

    parts: list[Part] = []
    refused: dict[tuple[str, str], None] = {}
    problem = "it has to give gradients" if gives_gradients(given) else None
    try:
        traced(module, given, kept)
        for graph, values in found:
            taken = graph.take(values, {})
            item = planned(taken.captured, shop, [values[position] for position in taken.takes])
            parts += [_part(segment, shop) for segment in item.plan.segments]
            refused |= {(r.op, r.reason): None for r in item.plan.refusals}
    except Exception as error:  # for this reason it would run in PyTorch
        problem = _first_line(str(error))
    return Explained(line_of(module), tuple(parts), tuple(refused), problem)


def _part(segment: PlannedSegment, shop: Workshop) -> Part:
    kind = kind_for(shop.options, shop.target)
    if segment.kind == "torch" and kind in TENSORRT_KINDS:
        kind = "inductor" if segment.compiled else "reference"
    return Part(segment.name, kind, dict(segment.operators))


def _segment(part: Part) -> str:
    most = sorted(part.operators.items(), key=lambda item: -item[1])
    names = ", ".join(f"{name.removeprefix('aten.')} x{count}" for name, count in most[:_SHOWN])
    more = f" and {len(most) - _SHOWN} more" if len(most) > _SHOWN else ""
    count = _count(sum(part.operators.values()), "operator")
    return f"{part.name}: {part.kind}, {count}: {names}{more}"


def _where(stack: Sequence[traceback.FrameSummary]) -> str:
    """``file.py:12`` and the code there, of the frame that Dynamo left the graph at."""
    if not stack:
        return ""
    frame = stack[-1]
    code = f" ({frame.line})" if frame.line else ""
    return f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}{code}"


def _reason(text: str) -> str:
    """Dynamo's reason in words, where that is a name of its own."""
    first = _first_line(text)
    return "it branches on a tensor's value" if first.startswith("generic_jump") else first


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
