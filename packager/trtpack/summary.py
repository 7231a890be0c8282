# SPDX-License-Identifier: Apache-2.0
"""Writes the build report from what the stages made."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx

from trtpack_runtime import treespec
from trtpack_runtime.smoke import Comparison

from .capture import Captured, returned
from .convert import ConvertedSegment, Ranges
from .converters.node import Refusal
from .engines import BuiltEngine
from .lowering import Lowered
from .options import Options
from .packing import output_name
from .partition import PlannedSegment
from .planning import Planned
from .proof import Proof
from .report import (
    Agreement,
    BuildReport,
    BundleReport,
    EngineReport,
    RefusedOperator,
    SegmentReport,
    TacticReport,
    TargetReport,
    ValueReport,
)
from .sources import Source
from .weights import WeightStore


@dataclass(frozen=True)
class Made:
    """What a build made beyond its plan: engines by target and segment, the weight store, the
    written file wherever it stands now, proofs by target."""

    engines: Mapping[str, Mapping[str, BuiltEngine]]
    store: WeightStore
    bundle: Path
    proofs: Mapping[str, Proof]


def describe(
    source: Source,
    lowered: Lowered,
    planned: Sequence[Planned],
    options: Options,
    made: Made | None = None,
) -> BuildReport:
    """The report of a build; without ``made`` that of a plan.

    It names ``options.output`` as the bundle.
    """
    captured = lowered.captured
    graph = captured.graph_module.graph
    placeholders = {n.name: n for n in graph.nodes if n.op == "placeholder"}
    parameters = [captured.graph_module.get_buffer(name) for name in captured.parameters]
    unique = {tensor.data_ptr(): tensor for tensor in parameters}.values()
    written = None
    if made is not None:
        written = BundleReport(str(options.output), made.bundle.stat().st_size, made.store.nbytes)
    return BuildReport(
        name=source.name,
        parameters=sum(t.numel() for t in unique),
        parameter_bytes=sum(t.numel() * t.element_size() for t in unique),
        inputs=tuple(
            _value(n, placeholders[n].meta["val"], captured.ranges) for n in captured.inputs if n
        ),
        outputs=_outputs(captured),
        operators=_operators(graph),
        passes=dict(lowered.effects),
        targets=tuple(
            _target(
                p,
                captured.ranges,
                made.engines[p.target.name] if made is not None else {},
                made.proofs[p.target.name] if made is not None else None,
            )
            for p in planned
        ),
        bundle=written,
        call=source.example_code(),
        notes=(
            *source.notes,
            *captured.notes,
            *_narrowed(source, captured, placeholders),
            *_in_float32(lowered),
        ),
        dry_run=options.dry_run,
    )


def _target(
    planned: Planned,
    ranges: Ranges,
    engines: Mapping[str, BuiltEngine],
    proof: Proof | None,
) -> TargetReport:
    target = planned.target
    return TargetReport(
        target.name,
        target.device,
        target.engine_kind,
        target.stack,
        tuple(_segment(s, planned.converted, ranges) for s in planned.plan.segments),
        _refused(planned.plan.refusals, planned.failed),
        tuple(map(_engine, engines.values())),
        tuple(_agreement(c) for c in proof.report.comparisons) if proof is not None else (),
        proof.device if proof is not None else None,
    )


def _engine(engine: BuiltEngine) -> EngineReport:
    use, options = engine.tactics, engine.options or {}
    return EngineReport(
        engine.segment,
        engine.kind,
        engine.nbytes,
        engine.seconds,
        engine.cached,
        engine.deferred,
        engine.age_seconds,
        options.get("weights"),
        TacticReport(**dataclasses.asdict(use)) if use is not None else None,
        engine.needs_bytes,
        engine.took_bytes,
    )


def _segment(
    segment: PlannedSegment, converted: Mapping[str, ConvertedSegment], ranges: Ranges
) -> SegmentReport:
    graph = segment.graph_module.graph
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    outputs = zip(segment.outputs, returned(graph), strict=True)
    done = converted.get(segment.name)
    return SegmentReport(
        segment.name,
        segment.kind,
        dict(segment.operators),
        tuple(_value(n.name, n.meta["val"], ranges) for n in inputs),
        tuple(_value(name, n.meta["val"], ranges) for name, n in outputs),
        len(done.network.layers) if done is not None else None,
    )


def _refused(refusals: Sequence[Refusal], failed: Mapping[str, str]) -> tuple[RefusedOperator, ...]:
    """Refusals of one operator for one reason together, the most frequent first."""
    late = {(r.op, r.reason) for r in refusals if r.reason == failed.get(r.node)}
    places: dict[tuple[str, str], list[str]] = {}
    for refusal in refusals:
        places.setdefault((refusal.op, refusal.reason), []).append(refusal.where)
    found = [
        RefusedOperator(
            op,
            len(where),
            reason,
            tuple(dict.fromkeys(w for w in where if w)),
            (op, reason) in late,
        )
        for (op, reason), where in places.items()
    ]
    return tuple(sorted(found, key=lambda r: (-r.count, r.op)))


def _agreement(comparison: Comparison) -> Agreement:
    metrics = comparison.metrics
    return Agreement(
        comparison.sample,
        comparison.output,
        metrics.max_abs if metrics else None,
        metrics.rel_l2 if metrics else None,
        metrics.cosine if metrics else None,
        comparison.failure,
    )


def _outputs(captured: Captured) -> tuple[ValueReport, ...]:
    nodes = returned(captured.graph_module.graph)
    paths = treespec.leaf_paths(treespec.encode(captured.out_spec), "output")
    return tuple(
        _value(output_name(path), nodes[place].meta["val"], captured.ranges)
        for path, place in zip(paths, captured.outputs, strict=True)
        if isinstance(place, int)
    )


def _value(name: str, value: Any, ranges: Ranges) -> ValueReport:
    shape = tuple(s if isinstance(s, int) else _size(s, ranges) for s in value.shape)
    return ValueReport(name, str(value.dtype).removeprefix("torch."), shape)


def _size(size: torch.SymInt, ranges: Ranges) -> str:
    """``1/4/8``, also for an expression of one dynamic size that grows with it."""
    expression = size.node.expr
    symbols = sorted(expression.free_symbols, key=str)
    if len(symbols) != 1 or str(symbols[0]) not in ranges:
        return "?" if any(str(s).startswith("u") for s in symbols) else f"({expression})"
    values = ranges[str(symbols[0])].values
    return "/".join(str(expression.subs(symbols[0], v)) for v in values)


def _narrowed(source: Source, captured: Captured, placeholders: Mapping[str, fx.Node]) -> list[str]:
    """A sentence for each declared range that the captured model does not keep."""
    notes: list[str] = []
    for (position, axis), declared in source.ranges.items():
        name = captured.inputs[position]
        if name is None:
            continue
        size = placeholders[name].meta["val"].shape[axis]
        if isinstance(size, int):
            notes.append(f"dimension {axis} of {name} is always {size}, not {declared}")
            continue
        kept = captured.ranges.get(str(size.node.expr))
        if kept is not None and kept.values != declared.values:
            notes.append(
                f"dimension {axis} of {name} is {kept}, not {declared}: the model needs it"
            )
    return notes


def _in_float32(lowered: Lowered) -> list[str]:
    count = lowered.effects.get("narrow_doubles", 0)
    if not count:
        return []
    what = "1 operator computes" if count == 1 else f"{count} operators compute"
    return [f"{what} in float32 instead of float64, which TensorRT lacks; see --strict-dtypes"]


def _operators(graph: fx.Graph) -> dict[str, int]:
    counts = Counter(
        str(n.target)
        for n in graph.nodes
        if n.op == "call_function" and isinstance(n.target, torch._ops.OpOverload)
    )
    return dict(counts.most_common())
