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

from trtpack_runtime.smoke import Comparison

from .accuracy.budgets import bounds, budgets_of
from .accuracy.gate import Verdict
from .capture import Captured, returned
from .convert import ConvertedSegment, Ranges
from .converters.node import Refusal
from .engine_options import TENSORRT_KINDS, kind_for
from .engines import BuiltEngine
from .lowering import Lowered
from .options import EngineKind, Options
from .output_names import output_names
from .partition import PlannedSegment, Prediction
from .planning import Planned
from .proof import Proof
from .report import (
    AccuracyReport,
    Agreement,
    BuildReport,
    BundleReport,
    EngineReport,
    PredictionReport,
    RefusedOperator,
    SegmentReport,
    TargetReport,
    ValueReport,
)
from .sources import Source
from .sparsity import SPARSE_SM, SPARSE_TYPES, sparsities
from .target import Target
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
    """The report of one method of a build; without ``made`` that of a plan.

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
                options,
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
            *_in_floats(captured),
        ),
        precision=lowered.plan.to_json(),
        sparsity=_sparsity(lowered, [p.target for p in planned], options),
        dry_run=options.dry_run,
    )


def _sparsity(
    lowered: Lowered, targets: Sequence[Target], options: Options
) -> dict[str, Any] | None:
    """Which weights are sparse, where that was asked for."""
    if not options.sparse and options.prune is None:
        return None
    types = {row.node: row.precision for row in lowered.plan.rows}
    found = list(sparsities(lowered.captured.graph_module.graph))
    sparse = [one.node for one in found if not one.why]
    return {
        "sparse": sparse,
        "left": {one.node: one.why for one in found if one.why},
        "places": {one.node: one.place for one in found},
        "usable": [node for node in sparse if SPARSE_TYPES & set(types.get(node, "").split("+"))],
        "without": {
            target.name: f"SM {target.sm} has no sparse tensor cores, which SM 8.0 brought"
            for target in targets
            if target.sm is not None and float(target.sm) < SPARSE_SM
        },
    }


def _target(
    planned: Planned,
    ranges: Ranges,
    engines: Mapping[str, BuiltEngine],
    proof: Proof | None,
    options: Options,
) -> TargetReport:
    target, method = planned.target, planned.method
    found = [c for c in (proof.report.comparisons if proof else ()) if _is_of(c, method)]
    verdict = proof.verdicts.get(method) if proof is not None else None
    return TargetReport(
        target.name,
        target.device,
        _kind(options, target),
        target.stack,
        tuple(_segment(s, planned.converted, ranges) for s in planned.plan.segments),
        _refused(planned.plan.refusals, planned.failed),
        tuple(_engine(e) for e in engines.values() if e.segment in planned.segments),
        tuple(map(_agreement, found)),
        proof.device if proof is not None else None,
        _accuracy(verdict, options) if verdict is not None else (),
        _predictions(planned.plan.prediction),
    )


def _kind(options: Options, target: Target) -> EngineKind:
    """The kind of a target's engines: TensorRT's only where it has TensorRT, whatever is asked."""
    kind = kind_for(options, target)
    without = target.engine_kind not in TENSORRT_KINDS
    return target.engine_kind if without and kind in TENSORRT_KINDS else kind


def _predictions(found: Prediction | None) -> tuple[PredictionReport, ...]:
    return () if found is None else (PredictionReport(**dataclasses.asdict(found)),)


def _is_of(comparison: Comparison, method: str) -> bool:
    """Whether it is of a golden sample of a method: ``prefill-0``."""
    return comparison.sample.rpartition("-")[0] == method


def _accuracy(verdict: Verdict, options: Options) -> tuple[AccuracyReport, ...]:
    outputs = [one.output for one in verdict.figures]
    budgets = budgets_of(options, outputs)
    found = [
        AccuracyReport(
            one.output,
            ", ".join(map(str, bounds(budgets, one.output))),
            one.cosine,
            one.rel_l2,
            one.max_abs,
            one.top1,
        )
        for one in verdict.figures
    ]
    if verdict.metric is not None:
        wanted = [str(b) for b in options.budgets if b.figure == "metric"]
        wanted += [f"drop<={options.max_drop}"] if options.max_drop is not None else []
        name, (of_model, value) = str(options.metric), verdict.metric
        found.append(AccuracyReport(name, ", ".join(wanted), of_model=of_model, value=value))
    return tuple(found)


def _engine(engine: BuiltEngine) -> EngineReport:
    options = engine.options or {}
    return EngineReport(
        engine.segment,
        engine.kind,
        engine.nbytes,
        engine.seconds,
        engine.cached,
        engine.deferred,
        engine.age_seconds,
        options.get("weights"),
        engine.tactics,
        engine.needs_bytes,
        engine.took_bytes,
        engine.failed,
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
        segment.compiled,
        segment.predicted_us,
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
    return tuple(
        _value(name, nodes[place].meta["val"], captured.ranges)
        for name, place in output_names(captured).items()
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


def _in_floats(captured: Captured) -> list[str]:
    places: list[str] = captured.graph_module.meta.get("unscaled", [])
    if not places:
        return []
    what = "1 quantizer is" if len(places) == 1 else f"{len(places)} quantizers are"
    why = "TensorRT's INT8 goes from -128 to 127 around 0, and has fixed scales"
    floats = "computed in floats, which is right and no faster"
    return [f"{what} {floats}: {why}; the first is at {places[0]}"]


def _operators(graph: fx.Graph) -> dict[str, int]:
    counts = Counter(
        str(n.target)
        for n in graph.nodes
        if n.op == "call_function" and isinstance(n.target, torch._ops.OpOverload)
    )
    return dict(counts.most_common())
