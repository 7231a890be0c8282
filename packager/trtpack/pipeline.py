# SPDX-License-Identifier: Apache-2.0
"""The one place that knows the order: source, capture, lower, partition, convert, engines, pack."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from trtpack_runtime.manifest import Limits
from trtpack_runtime.safetensors import open_safetensors

from .borders import record_borders
from .building import assemble_all, bench_for, build_engines, look_around, tactics_for
from .capture import capture
from .converters import load_module
from .engine_options import TENSORRT_KINDS, check_engine_options
from .engines import Bench
from .golden import copied, record_golden, unchanged_buffers
from .lowering import Lowered, lower
from .options import Options
from .packing import Model as PackedModel
from .packing import Variant, write
from .planning import METHOD, Planned, again, check_torch_ops, plan
from .profiles import profile_ranges
from .proof import prove
from .report import BuildReport, Progress
from .runtime_wheel import runtime_members
from .sources import Model, Source, load_source
from .summary import Made, describe
from .target import find_target
from .work_folder import work_folder

_LOG = logging.getLogger("trtpack.pipeline")

MAX_ATTEMPTS = 8
"""How often a target is planned again because TensorRT refused a part of it."""
ALIVE_TOLERANCE = 1e-4
"""A livened model's outputs differ between inputs by at least 100 times this, relatively."""


def build(model: Model, options: Options, progress: Progress | None = None) -> BuildReport:
    """Builds one bundle for all of ``options.targets`` and writes it to ``options.output``.

    Raises:
        TrtpackError: any stage failed; an existing file at the output path stays as it was.
    """
    progress = progress or Progress()
    targets = [find_target(name, options.engine) for name in options.targets]
    check_engine_options(options, targets)
    for module in options.converters:
        load_module(module)
    machine = None if options.dry_run else look_around(options, targets)
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
        has_tensorrt = any(t.engine_kind in TENSORRT_KINDS for t in targets)
        lowered = lower(captured, keep_doubles=options.strict_dtypes or not has_tensorrt)
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
    if machine is None:
        return describe(source, lowered, planned, options)
    with work_folder(options.output) as folder:
        bench = bench_for(source.name, options, machine, folder)
        return _finish(source, lowered, planned, bench, progress)


def _finish(
    source: Source,
    lowered: Lowered,
    planned: list[Planned],
    bench: Bench,
    progress: Progress,
) -> BuildReport:
    captured, options, folder = lowered.captured, bench.options, bench.folder
    wheels = runtime_members() if options.with_runtime else ()
    with progress.step("run the model for golden samples"):
        golden = record_golden(source, captured, options.samples)
    for attempt in itertools.count(1):
        with progress.step("collect the weights"):
            assembly = assemble_all(captured, planned, folder)
        bench = replace(bench, weights=assembly.stored.path)
        search = not (options.strict or options.locked) and attempt < MAX_ATTEMPTS
        engines = {
            p.target.name: build_engines(p, captured, assembly, bench, progress, search=search)
            for p in planned
        }
        if not any(made.refused for made in engines.values()):
            break
        with progress.step("plan again without what TensorRT refused"):
            planned = [again(lowered, p, engines[p.target.name].refused, options) for p in planned]
    built = {name: made.built for name, made in engines.items()}
    plan_report = describe(source, lowered, planned, options)
    variants = [
        Variant(
            p.target,
            assembly.programs[p.target.name],
            built[p.target.name],
            tactics_for(p.target, built[p.target.name], bench),
        )
        for p in planned
    ]
    limits = Limits(options.max_latency_ms, options.max_memory_mb)
    with progress.step("run the segments for what crosses between them"):
        weights = {n: v.tensor() for n, v in open_safetensors(assembly.stored.path).items()}
        borders = record_borders(captured, assembly.programs.values(), weights, golden)
    with progress.step("write the bundle"):
        bundle = write(
            folder / options.output.name,
            PackedModel(source, captured, METHOD, golden, limits, borders),
            assembly.stored,
            variants,
            options.metadata,
            _summary(plan_report),
            wheels,
        )
    proofs = {}
    for item in planned:
        name = item.target.name
        with progress.step(f"prove {name} with the golden samples"):
            proofs[name] = prove(
                bundle, item.target, built[name].values(), bench.facts, _failed(options.output)
            )
    made = Made(built, assembly.stored.store, bundle, proofs)
    report = describe(source, lowered, planned, options, made)
    bundle.replace(options.output)
    return report


def _failed(output: Path) -> Path:
    """Where a bundle goes whose engines are wrong: ``bundle.failed.tar``."""
    return output.with_name(f"{output.stem}.failed{output.suffix}")


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
