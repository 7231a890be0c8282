# SPDX-License-Identifier: Apache-2.0
"""The one place that knows the order: source, capture, lower, partition, convert, engines, pack."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trtpack_runtime.archive_writer import Member
from trtpack_runtime.manifest import Limits
from trtpack_runtime.safetensors import open_safetensors

from .accuracy.gate import Gate, hold_types
from .accuracy.reading import check_budgets
from .borders import record_borders
from .buffers import unchanged_buffers
from .building import (
    MAX_ATTEMPTS,
    Assembly,
    Machine,
    assemble_all,
    bench_for,
    build_engines,
    look_around,
    tactics_for,
)
from .capture import Captured, capture
from .converters import load_module
from .early import early_start
from .engine_options import TENSORRT_KINDS, check_debug_tensors, check_engine_options
from .engines import Bench, BuiltEngine
from .golden import record_golden, try_out
from .lowering import lower, own_graph
from .methods import Prepared, check_methods, options_of_methods
from .options import Options
from .packing import Model as PackedModel
from .packing import Variant, write
from .partition_checks import check_partition, check_places
from .partition_measuring import measured_partitions
from .planning import Planned, again, plan
from .precision.names import check_precision
from .precision_measuring import at_hand, fastest, plain_options
from .precision_requests import (
    check_data,
    choose_precisions,
    precision_request,
    quantization_request,
)
from .profiles import profile_ranges
from .proof import Proof, prove
from .remote.build import Engines, finish_on_device, look_at_device
from .report import BuildReport, Progress
from .report.methods import merged
from .report.precision_text import precision_line
from .runtime_wheel import runtime_members
from .shared_state import share_state
from .sources import Model, Source, load_sources
from .summary import Made, describe
from .target import Target, find_target
from .tuning import check_tuning, tune
from .turns import Turns, record_turns
from .work_folder import work_folder

_LOG = logging.getLogger("trtpack.pipeline")

ALIVE_TOLERANCE = 1e-4
"""A livened model's outputs differ between inputs by at least 100 times this, relatively."""


def build(model: Model, options: Options, progress: Progress | None = None) -> BuildReport:
    """Builds one bundle for all of ``options.targets`` and writes it to ``options.output``.

    Raises:
        TrtpackError: any stage failed; an existing file at the output path stays as it was.
    """
    progress = progress or Progress()
    check_tuning(options)
    if options.tune:
        return tune(options, lambda one, shown, ours: _build(model, one, shown, ours), progress)
    return _build(model, options, progress, lambda: False)


def _build(
    model: Model, options: Options, progress: Progress, has_lease: Callable[[], bool]
) -> BuildReport:
    """One build; ``has_lease`` says whether this host has the device of ``--on`` already."""
    targets = [find_target(name, options.engine) for name in options.targets]
    check_engine_options(options, targets)
    check_precision(options, targets)
    check_budgets(options)
    check_data(options)
    check_partition(options)
    for module in options.converters:
        load_module(module)
    machine = None if options.dry_run else look_around(options, targets)
    visit = None if options.dry_run else look_at_device(options, targets, progress)
    if machine is None:
        return _report(*_planned(model, options, targets, progress))
    elsewhere = frozenset() if visit is None else visit.targets
    with early_start(options, elsewhere):
        methods, planned = _planned(model, options, targets, progress, machine)
        with work_folder(options.output) as folder:
            bench = bench_for(methods[0].source.name, methods[0].options, machine, folder)
            if visit is not None:
                bench = replace(bench, elsewhere=elsewhere, has_lease=has_lease)
            if options.measure_partition:
                planned = measured_partitions(methods, planned, bench, progress)
            return _finish(methods, planned, bench, progress)


def _planned(
    model: Model,
    options: Options,
    targets: Sequence[Target],
    progress: Progress,
    machine: Machine | None = None,
) -> tuple[list[Prepared], list[Planned]]:
    """The model's methods, captured and lowered, and their plan for each target; ``machine`` is
    what may be measured on."""
    with progress.step("load the model"):
        sources = load_sources(
            model,
            weights=options.weights,
            dtype=options.dtype,
            seed=options.seed,
            inputs=options.inputs,
        )
        check_methods(options, sources)
        tried = _tried(sources, options)
    with progress.step("capture with torch.export"):
        captured = share_state([_captured(source) for source in sources])
    methods = [
        _prepared(source, first, graph, own, targets, progress, machine)
        for source, first, graph, own in zip(
            sources, tried, captured, options_of_methods(options, captured), strict=True
        )
    ]
    check_places([method.lowered for method in methods], options)
    profiles = [profile_ranges(m.captured, m.options.profiles) for m in methods]
    planned = []
    for target in targets:
        with progress.step(f"partition and convert for {target.name}"):
            planned += [
                plan(method.lowered, target, method.options, ranges)
                for method, ranges in zip(methods, profiles, strict=True)
            ]
    check_debug_tensors(options, [s.network for p in planned for s in p.converted.values()])
    for one in planned:
        for refusal in one.plan.refusals:
            at = f" at {refusal.where}" if refusal.where else ""
            told = f"{refusal.op}{at} stays in PyTorch: {refusal.reason}"
            _LOG.info("%s: %s", one.target.name, told)
    return methods, planned


def _tried(sources: Sequence[Source], options: Options) -> list[tuple[torch.Tensor, ...]]:
    """Calls every method once, if asked after the model was made to answer its inputs."""
    if options.liven:
        from .livening import check_alive, liven

        first = sources[0]
        liven(first.module, first.args, first.kwargs, seed=options.seed)
        for source in sources:
            with unchanged_buffers(source.module):
                check_alive(source.module, source.args, ALIVE_TOLERANCE, source.kwargs)
    return [try_out(source) for source in sources]


def _captured(source: Source) -> Captured:
    made = capture(
        source.exported or source.module,
        source.args,
        source.kwargs,
        source.dynamic_shapes,
        source.ranges,
    )
    return replace(made, method=source.method)


def _prepared(
    source: Source,
    tried: tuple[torch.Tensor, ...],
    captured: Captured,
    options: Options,
    targets: Sequence[Target],
    progress: Progress,
    machine: Machine | None,
) -> Prepared:
    """A method in the precision that is asked for, or that is found to be the best."""
    found, chosen = choose_precisions(source, captured, options, targets, progress)
    here = None
    if found is not None and machine is not None:
        here = at_hand(options, targets, machine)
    if machine is None or here is None:
        return _lowered(source, tried, captured, chosen, targets, progress, found)
    ways = [
        _lowered(source, tried, own_graph(captured), own, targets, progress, found)
        for own in (chosen, *plain_options(options, chosen))
    ]
    best, timed = fastest(ways, here, machine, progress)
    if timed is None:
        return best
    search = {**(found or {}), "timed": timed.to_json()}
    lowered = replace(best.lowered, plan=replace(best.lowered.plan, search=search))
    return replace(best, lowered=lowered)


def _lowered(
    source: Source,
    tried: tuple[torch.Tensor, ...],
    captured: Captured,
    options: Options,
    targets: Sequence[Target],
    progress: Progress,
    found: Mapping[str, Any] | None,
) -> Prepared:
    with progress.step("lower") as step:
        has_tensorrt = any(t.engine_kind in TENSORRT_KINDS for t in targets)
        request = precision_request(source, captured, options)
        lowered = lower(
            captured,
            keep_doubles=options.strict_dtypes or not has_tensorrt,
            precision=request,
            quantization=quantization_request(source, captured, options, step),
            pruned=options.prune is not None,
            search=found,
        )
    for name, count in ((n, c) for n, c in lowered.effects.items() if c):
        _LOG.info("pass %s: %d", name, count)
    return Prepared(source, tried, lowered, request, options)


def _finish(
    methods: Sequence[Prepared], planned: list[Planned], bench: Bench, progress: Progress
) -> BuildReport:
    options, folder = bench.options, bench.folder
    wheels = runtime_members() if options.with_runtime else ()
    with progress.step("run the model for golden samples"):
        sources, graphs = [m.source for m in methods], [m.captured for m in methods]
        golden = record_golden(sources, graphs, options.samples)
        turns = record_turns(sources, options.samples)
    limits, models, held = Limits(options.max_latency_ms, options.max_memory_mb), [], {}
    with progress.step("measure what the precisions cost"):
        for method, samples in zip(methods, golden, strict=True):
            gate = held[method.name] = method.gate(samples)
            hold_types(gate)
            noise, types = gate.noise(method.source, method.tried), method.lowered.plan
            models.append(
                PackedModel(method.source, method.captured, samples, limits, (), noise, types)
            )
    parts = _Parts(methods, models, held, turns, wheels)
    own = {method.name: method.options for method in methods}
    for attempt in itertools.count(1):
        with progress.step("collect the weights"):
            assembly = assemble_all([m.captured for m in methods], planned, folder)
        bench = replace(bench, weights=assembly.stored.path)
        search = not (options.strict or options.locked) and attempt < MAX_ATTEMPTS
        built: Engines = {}
        refused: dict[tuple[str, str], Mapping[str, str]] = {}
        for one in planned:
            name = one.target.name
            engines = build_engines(one, assembly, bench, progress, search=search)
            _warn_of_uncompiled(name, engines.built)
            built[name] = {**built.get(name, {}), **engines.built}
            refused |= {(name, segment): nodes for segment, nodes in engines.refused.items()}
        if not refused:
            bundle, proofs = _written(parts, planned, assembly, built, bench, progress)
            before = {(p.target.name, name): p.failed for p in planned for name in p.segments}
            failed = _failed(options.output)
            on, built, found = finish_on_device(
                bench, bundle, built, progress, failed, before if search else None
            )
            refused.update(found)
        if not refused:
            break
        with progress.step("plan again without what TensorRT refused"):
            planned = [again(one, refused, own[one.method]) for one in planned]
    made = Made(built, assembly.stored.store, bundle, proofs)
    report = replace(_report(methods, planned, made), on=on)
    bundle.replace(options.output)
    return report


def _warn_of_uncompiled(target: str, engines: Mapping[str, BuiltEngine]) -> None:
    for name, made in engines.items():
        if made.failed is not None:
            _LOG.warning("%s: PyTorch runs %s uncompiled, slower: %s", target, name, made.failed)


def _report(
    methods: Sequence[Prepared], planned: Sequence[Planned], made: Made | None = None
) -> BuildReport:
    """The report of all methods; without ``made`` that of a plan."""
    return merged(
        {
            m.name: describe(
                m.source, m.lowered, [p for p in planned if p.method == m.name], m.options, made
            )
            for m in methods
        }
    )


@dataclass(frozen=True)
class _Parts:
    """What a bundle has whatever its targets' plans are; ``models`` still without borders."""

    methods: Sequence[Prepared]
    models: Sequence[PackedModel]
    held: Mapping[str, Gate]
    turns: Sequence[Turns]
    wheels: Sequence[Member]


def _written(
    parts: _Parts,
    planned: Sequence[Planned],
    assembly: Assembly,
    built: Engines,
    bench: Bench,
    progress: Progress,
) -> tuple[Path, dict[str, Proof]]:
    """Writes the bundle and proves every target; it stands in the folder of the work."""
    options = bench.options
    plan_report = _report(parts.methods, planned)
    targets = {one.target.name: one.target for one in planned}
    variants = [
        Variant(
            target,
            assembly.programs[name],
            built[name],
            tactics_for(target, built[name], bench),
            options.cuda_graphs,
            bench.tactics.chosen_for(target),
        )
        for name, target in targets.items()
    ]
    models = []
    with progress.step("run the segments for what crosses between them"):
        weights = {n: v.tensor() for n, v in open_safetensors(assembly.stored.path).items()}
        for model in parts.models:
            programs = [found[model.method] for found in assembly.programs.values()]
            borders = record_borders(model.captured, programs, weights, model.golden)
            models.append(replace(model, borders=borders))
    with progress.step("write the bundle"):
        bundle = write(
            bench.folder / options.output.name,
            models,
            assembly.stored,
            variants,
            options.metadata,
            _summary(plan_report),
            parts.wheels,
        )
    proofs = {}
    for name, target in targets.items():
        with progress.step(f"prove {name} with the golden samples"):
            proofs[name] = prove(
                bundle,
                target,
                built[name].values(),
                bench.facts,
                _failed(options.output),
                parts.held,
                parts.turns,
            )
    return bundle, proofs


def _failed(output: Path) -> Path:
    """Where a bundle goes whose engines are wrong: ``bundle.failed.tar``."""
    return output.with_name(f"{output.stem}.failed{output.suffix}")


def _summary(report: BuildReport) -> dict[str, Any]:
    """What ``inspect`` shows of the build: nothing that depends on time or machine."""
    asked = {
        name: precision_line(one.precision)
        for name, one in (report.methods or {"": report}).items()
        if one.precision["asked"] or one.precision["pins"]
    }
    told = "; ".join(f"{name}: {line}" if name else line for name, line in asked.items())
    return {
        "parameters": report.parameters,
        "operators": dict(report.operators),
        **({"precision": told} if told else {}),
        "targets": {
            target.name: {
                "supported": dict(target.supported),
                "unsupported": dict(target.unsupported),
                "refused": [
                    {"op": r.op, "count": r.count, "reason": r.reason} for r in target.refused
                ],
            }
            for target in report.targets
        },
    }
