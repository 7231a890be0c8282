# SPDX-License-Identifier: Apache-2.0
"""``trtpack.explain(model, *inputs)``: what ``torch.compile(backend="trtpack")`` would make of it.

The model runs once, as Dynamo divides it; every graph is lowered and partitioned, and run by
PyTorch. No engine is built.
"""

from __future__ import annotations

import linecache
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from trtpack.engine_options import TENSORRT_KINDS, kind_for
from trtpack.options import Options
from trtpack.segments import PlannedSegment
from trtpack.spelling import first_of

from .graphs import Graph, computes, device_of, gives_gradients, line_of, traced
from .making import Workshop, planned, workshop
from .settings import options_of

_SHOWN = 4
"""So many operators of a segment are named."""

_BREAKS = "torch._dynamo.symbolic_convert.__graph_breaks"
"""Dynamo's log of breaks. It alone tells every one: a graph knows why it ended, but where nothing
was computed before a break, or a function is left to Python whole, no graph ended."""
_BREAK = re.compile(r"in user code at (?P<file>.+):(?P<line>\d+)\nGraph Break Reason: (?P<why>.*)")
_SKIPPED = re.compile(r"frame skipped: (\w+) \((.+) line (\d+)\)")
_EXPLAINED = re.compile(r"^ *Explanation: (.+?)\.?(?: Message: None)?$", re.MULTILINE)


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
    options: Options | Mapping[str, Any] | None = None,
    dynamic: bool | None = None,
    **named_inputs: Any,
) -> Explanation:
    """Prints, and answers, which graphs ``torch.compile`` would find, why it would end each, and
    which segments would run on which kind of engine.

    ``options`` and ``dynamic`` are those of ``torch.compile``; ``"target"`` may be any. The model
    runs once, and afterwards Dynamo has forgotten what it compiled before.

    Raises:
        ConfigError: options that are unknown, contradict each other or that the target cannot have.
    """
    settings = options_of(options)
    workshop(settings, torch.cuda.is_available(), True)  # what is wrong is told before it runs
    graphs: list[Explained] = []
    breaks: dict[Break, None] = {}
    shops: list[Workshop] = []

    def record(module: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        shops.append(workshop(settings, device_of(example_inputs).type == "cuda", True))
        if computes(module):
            graphs.append(_explained(module, example_inputs, shops[-1]))
        return module.forward

    torch.compiler.reset()
    try:
        with torch.no_grad(), _breaks_told(breaks.setdefault):
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
    names = [f"{name.removeprefix('aten.')} x{count}" for name, count in most]
    count = _count(sum(part.operators.values()), "operator")
    return f"{part.name}: {part.kind}, {count}: {first_of(names, _SHOWN)}"


@contextmanager
def _breaks_told(tell: Callable[[Break], object]) -> Iterator[None]:
    """Within the block every break that Dynamo logs is told, and printed nowhere."""
    log, teller = logging.getLogger(_BREAKS), _Teller(tell)
    before = log.level, log.propagate
    log.addHandler(teller)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(teller)
        log.setLevel(before[0])
        log.propagate = before[1]


class _Teller(logging.Handler):
    def __init__(self, tell: Callable[[Break], object]) -> None:
        super().__init__(logging.DEBUG)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        found = _BREAK.search(text)
        if found is not None:
            reason = text[found.start("why") :].partition("\nUser code traceback:")[0]
            self._tell(Break(_where(found["file"], int(found["line"])), _reason(reason)))


def _where(file: str, line: int) -> str:
    """``file.py:12`` and the code there."""
    code = linecache.getline(file, line).strip()
    return _at(file, line) + (f" ({code})" if code else "")


def _at(file: str, line: int | str) -> str:
    return f"{file.rsplit('/', 1)[-1]}:{line}"


def _reason(text: str) -> str:
    """What Dynamo explains of a break, in a line."""
    skipped = _SKIPPED.search(text)
    whole = (
        f"; {skipped[1]} ({_at(skipped[2], skipped[3])}) runs in Python whole" if skipped else ""
    )
    head, _, rest = text.partition("\n\n")
    told = rest if rest and head.endswith(":") else text
    if _first_line(told).startswith(("Data-dependent branching", "generic_jump")):
        return f"it branches on a tensor's value{whole}"
    explained = _EXPLAINED.search(told)
    return f"{explained[1] if explained else _first_line(told)}{whole}"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
