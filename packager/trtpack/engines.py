# SPDX-License-Identifier: Apache-2.0
"""Builds, or defers, the engine of every segment of one target's program."""

from __future__ import annotations

import logging
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtpack_runtime import builders
from trtpack_runtime.builders import Outcome, Site, Work
from trtpack_runtime.compiling import Source, cannot_compile, parts
from trtpack_runtime.durations import about
from trtpack_runtime.engine_store import EngineStore, StoredEngine, content_of, engine_key
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_runtime.own_engines import estimate
from trtpack_runtime.program import Segment
from trtpack_runtime.progress import Progress as Told
from trtpack_runtime.progress import Watch
from trtpack_runtime.tf32 import convolves_in_tf32

from .custom_operators import required_modules
from .engine_options import TENSORRT_KINDS, build_options, inductor_config, kind_for
from .options import EngineKind, Options
from .report import TacticReport
from .tactic_book import TacticBook
from .target import Target

_LOG = logging.getLogger("trtpack.engines")
_TENSORRT = logging.getLogger("trtpack.tensorrt")
_INDUCTOR = logging.getLogger("trtpack.inductor")

OnProgress = Callable[[str], None]
"""Told what a build is doing, as a short clause."""


@dataclass(frozen=True)
class BuiltEngine:
    """A segment's engine: a file with its record, or the reason why the device builds it.

    ``kind`` is the engine kind; ``cached`` says that it was not built now; ``age_seconds`` how long
    ago then. A device builds it with ``options``; ``content`` is a digest of what it computes.
    ``tactics`` tells where its build began. ``needs_bytes`` of memory it takes at the least;
    ``took_bytes`` of the GPU's its build took, where that was seen. ``failed`` says why there is
    none of a segment that PyTorch runs in any case, and that could not be compiled.
    """

    segment: str
    kind: str
    path: Path | None = None
    record: Mapping[str, Any] | None = None
    deferred: str | None = None
    seconds: float = 0.0
    cached: bool = False
    age_seconds: float = 0.0
    options: Mapping[str, Any] | None = None
    content: str | None = None
    tactics: TacticReport | None = None
    needs_bytes: int | None = None
    took_bytes: int | None = None
    failed: str | None = None

    @property
    def nbytes(self) -> int:
        """Size of the engine file; 0 where there is none."""
        return self.path.stat().st_size if self.path else 0


@dataclass(frozen=True)
class Job:
    """What an engine is built from: the segment, its inputs, its network if it has one.

    ``digests`` are the sha256 of every stored tensor it reads, by stored name. Of PyTorch's
    segments only those are ``compiled`` that gain by it.
    """

    segment: Segment
    inputs: tuple[Tensor, ...]
    profile: Profile | None
    network: Network | None
    digests: Mapping[str, str]
    compiled: bool = True


@dataclass(frozen=True)
class Bench:
    """Where engines are built: this machine's ``facts``, its caches, the weights of the model.

    ``folder`` takes what is built. ``elsewhere`` are the targets whose engines the device of
    ``--on`` builds; ``has_lease`` says whether this host has that device by another connection.
    """

    model: str
    options: Options
    facts: Mapping[str, Any]
    weights: Path
    folder: Path
    store: EngineStore
    tactics: TacticBook
    elsewhere: frozenset[str] = frozenset()
    has_lease: Callable[[], bool] = lambda: False


def build_engine(
    job: Job, target: Target, bench: Bench, on_progress: OnProgress
) -> BuiltEngine | None:
    """The engine of one segment for one target; None where the segment runs without one.

    Raises:
        EngineBuildError: the builder refused the segment or died.
        DeviceError: this machine's GPU cannot do it.
        ConfigError: a build of another process imports the script that builds.
    """
    from trtpack_runtime.engines._inductor_build import refuse_within_child

    kind = _kind_of(job, target, bench.options)
    if kind is None:
        return None
    refuse_within_child()
    made = BuiltEngine(job.segment.name, kind)
    if job.network is not None:
        from trtpack_runtime.engines._estimate import least_bytes

        told = build_options(bench.options, target, job.network)
        content = content_of(job.network, job.digests)
        made = replace(
            made,
            options=told.to_json(),
            content=content,
            needs_bytes=least_bytes(job.network),
        )
    elif (source := _between(job, target, bench.options)) is not None:
        made = replace(made, options=source.options(), content=source.content(job.digests))
    by_device = made.content is not None
    reason = cannot_build_here(kind, target, bench.facts, by_device=by_device)
    if bench.options.defer and by_device:
        reason = "left to the device, as was asked"
    if target.name in bench.elsewhere and by_device:
        reason = f"left to {bench.options.on}"
    if reason is not None:
        _LOG.info("%s: %s is deferred: %s", target.name, made.segment, reason)
        use = bench.tactics.left_to(target) if kind == "tensorrt" else None
        return replace(made, deferred=reason, tactics=use)
    key = engine_key(_depends_on(made, job, target, bench))
    with bench.store.lock(key):
        proved = made.kind == "tensorrt" and bench.options.locked  # by a build, each time
        known = None if proved else bench.store.get(key)
        if known is not None:
            _LOG.info("%s: %s comes from the cache: %s", target.name, made.segment, known.path)
            return _from_store(made, known, target, bench)
        return _built(made, key, job, target, bench, on_progress)


def _kind_of(job: Job, target: Target, options: Options) -> EngineKind | None:
    """The kind of a segment's engine; None where PyTorch runs it operator by operator."""
    kind = kind_for(options, target)
    if kind == "reference":
        return None
    if job.network is None:
        return "inductor" if job.compiled and not (options.eager and kind != "inductor") else None
    return kind if kind in TENSORRT_KINDS else None


def _between(job: Job, target: Target, options: Options) -> Source | None:
    """What a segment between engines of TensorRT is compiled from, here or on the device."""
    if kind_for(options, target) not in TENSORRT_KINDS or job.segment.graph is None:
        return None
    return Source(job.segment.graph, job.inputs, job.profile)


def probe(network: Network, target: Target, bench: Bench) -> None:
    """Builds a part of a segment's network as the whole is built, and forgets the engine.

    Raises:
        EngineBuildError: the builder refused it or died.
    """
    kind = kind_for(bench.options, target)
    plan = bench.folder / "probe.plan"
    known = bench.tactics.known(target) if kind == "tensorrt" else None
    told = build_options(bench.options, target, network).to_json()
    tactics = known.blob if known is not None else None
    work = Work("a part of it", network, (bench.weights,), told, tactics)
    try:
        builders.BUILDERS[kind].build(work, plan, _site(target, bench), None)
    finally:
        plan.unlink(missing_ok=True)


def builder_name(target: Target, bench: Bench) -> str:
    """What builds a target's engines here: ``TensorRT 10.3.0``."""
    if kind_for(bench.options, target) == "tensorrt-rtx":
        return f"TensorRT-RTX {bench.facts['tensorrt_rtx']}"
    return f"TensorRT {bench.facts['tensorrt']}"


def cannot_build_here(
    kind: str, target: Target, facts: Mapping[str, Any], *, by_device: bool = True
) -> str | None:
    """Why the engine cannot be built here, as a clause a user can read, or None; ``by_device`` says
    that a device builds what is left to it."""
    if target.unsupported:
        return target.unsupported
    if kind in builders.BUILDERS:
        why = lacking_here(kind, target, facts)
        return why and (
            f"not built on this host, {why}; left to the device, which builds it at its first run"
        )
    if by_device:
        why = lacking_here(kind, target, facts)
        return why and (
            f"not compiled on this host, {why}; left to the device, which compiles it at its "
            "first run"
        )
    if target.sm is not None and (why := _not_on_gpu(target, facts)):
        return f"AOTInductor compiles on the GPU it is for, {why}; it runs in PyTorch there"
    if target.arch != platform.machine():
        return f"this host is {platform.machine()}, not {target.arch}; it runs in PyTorch there"
    if not (shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")):
        return "this host has no C++ compiler; it runs in PyTorch there"
    return None


def cannot_measure_here(kind: str, target: Target, facts: Mapping[str, Any]) -> str | None:
    """Why engines of a target cannot be built and run here, as a clause, or None: TensorRT-RTX
    builds for GPUs that are not there."""
    why = lacking_here(kind, target, facts)
    if why is None and target.sm is not None:
        return _not_on_gpu(target, facts)
    return why


def lacking_here(kind: str, target: Target, facts: Mapping[str, Any]) -> str | None:
    """What this host lacks to build the engine as the target's device would, as a clause, or
    None."""
    if target.unsupported:
        return target.unsupported
    site = Site(facts, target.describe())
    if kind in builders.BUILDERS:
        return builders.BUILDERS[kind].cannot_build(site)
    return cannot_compile(site)


def _not_on_gpu(target: Target, facts: Mapping[str, Any]) -> str | None:
    """Why nothing of a target's GPU runs in PyTorch here, as a clause, or None."""
    import torch

    if not facts["gpus"]:
        return "; ".join(facts.get("problems", ())) or "there is no NVIDIA GPU"
    gpu = facts["gpus"][0]
    if gpu["sm"] not in (target.sm, *target.sm_also):
        return f"{gpu['name']} is SM {gpu['sm']}, not {target.sm}"
    return None if torch.cuda.is_available() else "PyTorch here cannot use it"


def _site(target: Target, bench: Bench) -> Site:
    return Site(bench.facts, target.describe())


def _from_store(
    made: BuiltEngine, known: StoredEngine, target: Target, bench: Bench
) -> BuiltEngine:
    path = _path(made, target, bench)
    shutil.copyfile(known.path, path)
    age = time.time() - known.built_at
    return replace(made, path=path, record=known.record, cached=True, age_seconds=age)


def _built(
    made: BuiltEngine, key: str, job: Job, target: Target, bench: Bench, on_progress: OnProgress
) -> BuiltEngine:
    path = _path(made, target, bench)
    start = time.perf_counter()
    record: Mapping[str, Any]
    if made.kind == "inductor":
        record = _build_inductor(made, job, path, target, bench, on_progress)
    else:
        outcome = _build_network(made, job, path, target, bench, on_progress)
        record, use = outcome.record, None
        if made.kind == "tensorrt":
            use = bench.tactics.learnt(target, outcome)
        made = replace(made, tactics=use, took_bytes=outcome.gpu.get("taken_bytes"))
    seconds = time.perf_counter() - start
    origin = {
        "model": bench.model,
        "target": target.name,
        "segment": made.segment,
        "content": made.content,
        "device": _gpu(bench.facts),
        "kind": made.kind,
    }
    bench.store.put(key, path, record, about=origin, seconds=seconds)
    return replace(made, path=path, record=record, seconds=seconds)


def _path(made: BuiltEngine, target: Target, bench: Bench) -> Path:
    suffix = "pt2" if made.kind == "inductor" else "plan"
    return bench.folder / f"{target.name}-{made.segment}.{suffix}"


def _gpu(facts: Mapping[str, Any]) -> str | None:
    return facts["gpus"][0]["name"] if facts["gpus"] else None


def _depends_on(made: BuiltEngine, job: Job, target: Target, bench: Bench) -> dict[str, Any]:
    if made.kind in builders.BUILDERS:
        builder = builders.BUILDERS[made.kind]
        assert made.content is not None
        needed = builder.parts(made.content, made.options or {}, _site(target, bench))
        chosen = bench.tactics.chosen if made.kind == "tensorrt" else None
        return {**needed, "tactics": chosen} if chosen else needed
    if made.content is not None:
        return parts(made.content, _site(target, bench))
    from trtpack_runtime.engines.inductor import cpu_flags

    profile = job.profile.shapes if job.profile else {}
    gpu: dict[str, Any] = {}
    if target.sm is not None:
        gpu = {"gpu": bench.facts["gpus"][0]["sm"], "tf32": convolves_in_tf32()}
    return {
        "kind": made.kind,
        "graph": job.segment.graph,
        "inputs": [str(tensor) for tensor in job.inputs],
        "weights": dict(job.digests),
        "profile": {k: [list(s) for s in v] for k, v in profile.items()},
        "torch": bench.facts["torch"],
        "emitter": bench.facts["runtime"],
        "machine": platform.machine(),
        "cpu": cpu_flags(),
        **gpu,
        **({"config": config} if (config := inductor_config(bench.options)) else {}),
    }


def _build_inductor(
    made: BuiltEngine, job: Job, path: Path, target: Target, bench: Bench, on_progress: OnProgress
) -> Mapping[str, Any]:
    from trtpack_runtime.engines._inductor_build import build_in_child

    assert job.segment.graph is not None
    on_progress("compiling C++" if target.sm is None else "compiling kernels and C++")
    return build_in_child(
        job.segment.graph,
        [bench.weights],
        job.inputs,
        path,
        profile=job.profile,
        imports=required_modules(job.segment.graph),
        log=lambda line: _INDUCTOR.debug("%s", line),
        device="cpu" if target.sm is None else "cuda",
        config=inductor_config(bench.options) if made.content is None else {},
    )


def _build_network(
    made: BuiltEngine,
    job: Job,
    path: Path,
    target: Target,
    bench: Bench,
    on_progress: OnProgress,
) -> Outcome:
    """Builds a TensorRT engine, beginning with the tactics known before."""
    assert job.network is not None
    known = bench.tactics.known(target) if made.kind == "tensorrt" else None
    work = Work(
        made.segment,
        job.network,
        (bench.weights,),
        made.options or {},
        known.blob if known is not None else None,
        on_log=lambda line: _TENSORRT.debug("%s", line),
        verbose=_TENSORRT.isEnabledFor(logging.DEBUG),
    )

    def told(progress: Told) -> None:
        on_progress(progress_text(progress))

    watch = Watch(made.segment, len(job.network.layers), told)
    watch.starts(estimate(bench.store, made.content or "", bench.facts))
    return builders.BUILDERS[made.kind].build(work, path, _site(target, bench), watch.event)


def progress_text(progress: Told) -> str:
    """``tactic selection 42 %, about 30 s left``: a step already tells the segment and the time."""
    done = "" if progress.fraction is None else f" {100 * progress.fraction:.0f} %"
    left = "" if progress.remaining is None else f", {about(progress.remaining)} left"
    return f"{progress.phase or f'{progress.layers} layers'}{done}{left}"
