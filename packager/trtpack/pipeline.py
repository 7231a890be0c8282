# SPDX-License-Identifier: Apache-2.0
"""The one place that knows the order: source, capture, lower, partition, convert, engines, pack."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trtpack_runtime.network import Network

from .capture import Captured, capture
from .convert import signature
from .engine_cache import EngineCache
from .engine_options import check_engine_options
from .engines import BuiltEngine, Job, build_engine
from .golden import copied, record_golden, unchanged_buffers
from .lowering import Lowered, lower
from .options import Options
from .packing import Model as PackedModel
from .packing import Variant, store_parameters, write, write_weights
from .planning import METHOD, Planned, check_torch_ops, plan
from .profiles import profile_ranges
from .program import Assembled, assemble
from .proof import prove
from .report import BuildReport, Progress
from .sources import Model, Source, load_source
from .summary import describe
from .target import find_target
from .weights import WeightStore
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
    targets = [find_target(name) for name in options.targets]
    check_engine_options(options, targets)
    with progress.step("load the model"):
        source = load_source(
            model,
            weights=options.weights,
            dtype=options.dtype,
            seed=options.seed,
            inputs=options.inputs,
        )
        if options.liven:
            from .livening import check_alive, liven

            liven(source.module, source.args, source.kwargs, seed=options.seed)
            with unchanged_buffers(source.module):
                check_alive(source.module, source.args, ALIVE_TOLERANCE, source.kwargs)
        with unchanged_buffers(source.module):  # its state begins as it was given
            source.run(copied((source.args, source.kwargs)))
    with progress.step("capture with torch.export"):
        captured = capture(
            source.exported or source.module,
            source.args,
            source.kwargs,
            source.dynamic_shapes,
            source.ranges,
        )
    with progress.step("lower"):
        lowered = lower(captured)
    for name, count in ((n, c) for n, c in lowered.effects.items() if c):
        _LOG.info("pass %s: %d", name, count)
    check_torch_ops(lowered, options)
    profiles = profile_ranges(captured, options.profiles)
    planned = []
    for target in targets:
        with progress.step(f"partition and convert for {target.name}"):
            planned.append(plan(lowered, target, options, profiles))
        for refusal in planned[-1].plan.refusals:
            at = f" at {refusal.where}" if refusal.where else ""
            _LOG.info("%s: %s%s stays in PyTorch: %s", target.name, refusal.op, at, refusal.reason)
    if options.dry_run:
        return describe(source, lowered, planned, options)
    with work_folder(options.output) as folder:
        return _finish(source, lowered, planned, options, folder, progress)


def _finish(
    source: Source,
    lowered: Lowered,
    planned: list[Planned],
    options: Options,
    folder: Path,
    progress: Progress,
) -> BuildReport:
    captured = lowered.captured
    with progress.step("run the model for golden samples"):
        golden = record_golden(source, captured, options.samples)
    with progress.step("collect the weights"):
        store = WeightStore()
        names = store_parameters(captured, store)
        programs = {
            p.target.name: assemble(captured, p.plan, p.converted, store, METHOD) for p in planned
        }
        stored = write_weights(store, names, folder)
    engines: dict[str, dict[str, BuiltEngine]] = {}
    cache = EngineCache()
    for item in planned:
        engines[item.target.name] = {}
        for job in _jobs(item, captured, programs[item.target.name], store):
            with progress.step(f"{item.target.name}: engine of {job.segment.name}") as step:
                built = build_engine(
                    job, item.target, options, stored.path, folder, cache, step.detail
                )
            if built is not None:
                engines[item.target.name][built.segment] = built
    plan_report = describe(source, lowered, planned, options)
    with progress.step("write the bundle"):
        bundle = write(
            folder / options.output.name,
            PackedModel(source, captured, METHOD, golden),
            stored,
            [Variant(p.target, programs[p.target.name], engines[p.target.name]) for p in planned],
            options.metadata,
            _summary(plan_report),
        )
    proofs = {}
    for item in planned:
        with progress.step(f"prove {item.target.name} with the golden samples"):
            proofs[item.target.name] = prove(bundle, item.target.name)
    report = describe(source, lowered, planned, options, engines, store, bundle, proofs)
    bundle.replace(options.output)
    return report


def _summary(report: BuildReport) -> dict[str, Any]:
    """What ``inspect`` shows of the build: nothing that depends on time or machine."""
    return {
        "parameters": report.parameters,
        "operators": dict(report.operators),
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


def _jobs(
    item: Planned, captured: Captured, assembled: Assembled, store: WeightStore
) -> Iterator[Job]:
    graphs = {segment.name: segment.graph_module for segment in item.plan.segments}
    for segment in assembled.program.segments:
        network: Network | None = assembled.networks.get(segment.name)
        inputs, profile = signature(graphs[segment.name], captured.ranges)
        names = (
            [c.data for c in network.constants.values()]
            if network is not None
            else _constants_of(segment.graph)
        )
        digests = {name: store.digest(name) for name in names}
        yield Job(segment, inputs, profile, network, digests)


def _constants_of(value: object) -> list[str]:
    if isinstance(value, dict):
        name = value.get("constant")
        if len(value) == 1 and isinstance(name, str):
            return [name]
        return [n for part in value.values() for n in _constants_of(part)]
    if isinstance(value, list):
        return [n for part in value for n in _constants_of(part)]
    return []
