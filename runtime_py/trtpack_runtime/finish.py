# SPDX-License-Identifier: Apache-2.0
"""Builds on a device what its bundle could not bring: engines that were deferred or do not fit.

What is built goes into the device's engine store, what the tactic search measured into its tactic
store, so the second start builds nothing. Neither is required: where their disk is full or
read-only, the engine lasts as long as the caller's scratch folder.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import network as networks
from . import program
from .builders import BUILDERS, Builder, Work
from .bundle import Bundle
from .device_tactics import keep_tactics, known_tactics, prove_locked, provenance, together
from .durations import about, ago
from .engine_store import EngineStore, StoredEngine, content_of, engine_key
from .engines import engine as engine_module
from .engines._options import BuildOptions
from .errors import BuildCancelled, BundleError, ConfigError, DeviceError, EngineBuildError
from .manifest import EngineRef, Variant
from .network import Network
from .progress import OnProgress, Watch
from .resolve import OwnEngine, verdict_of
from .tactics import TacticKey, Tactics, TacticStore

_PATIENCE_S = 0.5

OnFailure = Callable[[str, Exception], None]
"""Told of a segment whose engine could not be built, and why."""


@dataclass(frozen=True)
class Stores:
    """Where a machine keeps the engines it built and what it measured."""

    engines: EngineStore = field(default_factory=EngineStore)
    tactics: TacticStore = field(default_factory=TacticStore)


@dataclass(frozen=True)
class Finished:
    """An engine that this machine built, now or (``cached``) before in ``seconds``.

    ``learnt`` is what is known of the device's tactics after it was built now; ``refused_tactics``
    says what is wrong with what was known before, where TensorRT did not take it.
    """

    segment: str
    kind: str
    path: Path
    record: Mapping[str, Any]
    cached: bool
    seconds: float
    built_at: float
    key: str
    learnt: Tactics | None = None
    refused_tactics: str | None = None

    @property
    def nbytes(self) -> int:
        """The size of the engine's file."""
        return self.path.stat().st_size

    @property
    def told(self) -> str:
        """Where it comes from, as a clause."""
        if self.cached:
            return f"from the store, built {ago(time.time() - self.built_at)}"
        anew = self.refused_tactics
        anew = f", tactics measured anew: the timing cache {anew}" if anew else ""
        return f"built here in {self.seconds:.1f} s{anew}"


@dataclass(frozen=True)
class _Job:
    """A segment whose engine this machine is to build or has built."""

    bundle: Bundle
    variant: str
    segment: str
    ref: EngineRef
    options: Mapping[str, Any]
    target: Mapping[str, Any]
    network: Network
    content: str

    @property
    def builder(self) -> Builder:
        return BUILDERS[self.ref.kind]

    def key(self, facts: Mapping[str, Any]) -> str:
        return engine_key(self.builder.parts(self.content, self.options, facts, self.target))


def buildable(bundle: Bundle, variant: str) -> dict[str, EngineRef]:
    """The segments of a variant with an engine of a kind that devices build."""
    segments = _networks(bundle, bundle.manifest.variants[variant])
    engines = bundle.manifest.variants[variant].engines
    return {n: ref for n, ref in engines.items() if ref.kind in BUILDERS and n in segments}


def own_engines(
    bundle: Bundle,
    facts: Mapping[str, Any],
    store: EngineStore | None,
    untrusted: Collection[str] = (),
    *,
    build: bool = True,
) -> dict[tuple[str, str], OwnEngine]:
    """What a machine has built or can build in place of engines that do not fit it.

    ``store`` is None for a machine that is not this one. Without ``build`` only what is stored
    counts.
    """
    found = {}
    for name, variant in bundle.manifest.variants.items():
        for segment, ref in buildable(bundle, name).items():
            own = _own(bundle, name, variant, segment, ref, facts, store, untrusted, build)
            if own is not None:
                found[name, segment] = own
    return found


def _own(
    bundle: Bundle,
    name: str,
    variant: Variant,
    segment: str,
    ref: EngineRef,
    facts: Mapping[str, Any],
    store: EngineStore | None,
    untrusted: Collection[str],
    build: bool,
) -> OwnEngine | None:
    verdict = verdict_of(ref, variant.target, facts, untrusted)
    if verdict.fit == "exact":
        return None
    why = BUILDERS[ref.kind].cannot_run(facts, variant.target)
    if why is not None:
        if verdict.fit != "rebuild":
            return None
        begin = "not built yet" if ref.member is None else verdict.reason
        return OwnEngine("rebuild", f"{begin}, and cannot be built here: {why}")
    job = _job(bundle, name, segment)
    if store is not None and (stored := _usable(store.get(job.key(facts)), ref.kind, facts)):
        when = ago(time.time() - stored.built_at)
        return OwnEngine("exact", f"from the store, built on this device {when}")
    if verdict.usable:
        return None
    if not build:
        if ref.member is not None:
            return None
        return OwnEngine("rebuild", "not built on this device yet, and building is switched off")
    seconds = None if store is None else estimate(store, job.content, facts)
    count = f"{len(job.network.layers)} layers"
    hint = count if seconds is None else f"{about(seconds)}: {count}"
    return OwnEngine("builds", f"builds here at its first run ({hint})", seconds)


def estimate(store: EngineStore, content: str, facts: Mapping[str, Any]) -> float | None:
    """How long the last build of the same content on such a device took, in seconds."""
    device = _device(facts)
    past = [
        e
        for e in store.entries()
        if e.about.get("content") == content and e.about.get("device") == device
    ]
    return max(past, key=lambda e: e.built_at).seconds if past else None


def finish_segment(
    bundle: Bundle,
    variant: str,
    segment: str,
    facts: Mapping[str, Any],
    *,
    stores: Stores,
    scratch: Path,
    on_progress: OnProgress | None = None,
    rebuild: bool = False,
    seed: bytes | None = None,
) -> Finished:
    """The engine of a segment for this machine: from its store, else built in a child process.

    Two processes that want the same engine at once build it once. ``scratch`` is a folder for what
    cannot be stored; ``seed`` a timing cache to begin with besides those of store and bundle.

    Raises:
        DeviceError: this machine cannot build it.
        EngineBuildError: TensorRT refused, or its process died.
        BundleError: the bundle is damaged, or was replaced meanwhile.
        ConfigError: the disk refused.
    """
    job = _job(bundle, variant, segment)
    why = job.builder.cannot_build(facts, job.target)
    if why is not None:
        raise DeviceError(
            f"cannot build {segment} of {variant} here: {why}",
            hint="run it on a device of that kind, trtpack doctor shows what this one is",
        )
    key = job.key(facts)
    if not rebuild and (found := _stored(stores, job, key, facts)):
        return found
    watch = Watch(segment, len(job.network.layers), on_progress)
    began = time.time()
    with _locked(stores.engines, key, watch):
        found = _stored(stores, job, key, facts)
        if found is not None and (not rebuild or found.built_at >= began):
            return found  # another process built it while this one waited
        return _build(job, key, facts, stores, scratch, watch, seed)


def finish_variant(
    bundle: Bundle,
    variant: str,
    segments: Sequence[str],
    facts: Mapping[str, Any],
    *,
    stores: Stores,
    scratch: Path,
    on_progress: OnProgress | None = None,
    on_failure: OnFailure | None = None,
    rebuild: bool = False,
) -> list[Finished]:
    """The engines of several segments of a variant, each as ``finish_segment`` answers it.

    With ``on_failure`` an engine that cannot be built is told and left out, without it the error is
    raised; a damaged bundle and a cancelled build always are.
    """
    done: list[Finished] = []
    for i, segment in enumerate(segments):
        seed = next((d.learnt.blob for d in reversed(done) if d.learnt is not None), None)
        told = None if on_progress is None else _numbered(on_progress, i, len(segments))
        try:
            done.append(
                finish_segment(
                    bundle,
                    variant,
                    segment,
                    facts,
                    stores=stores,
                    scratch=scratch,
                    on_progress=told,
                    rebuild=rebuild,
                    seed=seed,
                )
            )
        except BuildCancelled:
            raise
        except (EngineBuildError, DeviceError, ConfigError) as error:
            if on_failure is None:
                raise
            on_failure(segment, error)
    return done


def _numbered(on_progress: OnProgress, index: int, count: int) -> OnProgress:
    return lambda progress: on_progress(replace(progress, index=index, count=count))


@contextmanager
def _locked(store: EngineStore, key: str, watch: Watch) -> Iterator[None]:
    """Holds the lock of a key; says so where another process has it for a while."""
    timer = threading.Timer(_PATIENCE_S, watch.waiting)
    timer.daemon = True
    timer.start()
    with ExitStack() as stack:
        try:
            stack.enter_context(store.lock(key))
        finally:
            timer.cancel()
        yield


def _build(
    job: _Job,
    key: str,
    facts: Mapping[str, Any],
    stores: Stores,
    scratch: Path,
    watch: Watch,
    seed: bytes | None,
) -> Finished:
    _check_content(job)
    weights = [job.bundle.file_part(name) for name in job.bundle.manifest.weights.members]
    caches = job.bundle.manifest.variants[job.variant].caches
    known = known_tactics(job.bundle, caches, job.ref.kind, facts, stores.tactics)
    tactics = seed or together([t.blob for t in known])
    plan = scratch / f"{job.segment}-{key[:12]}.plan"
    watch.starts(estimate(stores.engines, job.content, facts))
    began = time.perf_counter()
    work = Work(job.segment, job.network, weights, job.options, job.target, tactics)
    outcome = job.builder.build(work, plan, facts, watch.event)
    seconds = time.perf_counter() - began
    if not job.bundle.is_in_place():
        plan.unlink(missing_ok=True)
        raise BundleError(
            f"{job.bundle.path} was replaced while its engines were built",
            hint="run it again",
        )
    learnt = None
    if outcome.tactics is not None and job.ref.kind == "tensorrt":
        mine = learnt = Tactics(
            TacticKey.of(facts), outcome.tactics, outcome.entries, provenance(facts, outcome.gpu)
        )
        if job.options.get("locked"):
            prove_locked(job.segment, known, mine)
        used = {seed, *(t.blob for t in known)}
        keep_tactics(stores.tactics, mine, used)
    stored = stores.engines.put(
        key, plan, outcome.record, about=_about(job, facts), seconds=seconds
    )
    path = plan
    if stored is not None:
        plan.unlink(missing_ok=True)
        path = stored.path
    return Finished(
        job.segment,
        job.ref.kind,
        path,
        outcome.record,
        False,
        seconds,
        time.time(),
        key,
        learnt,
        outcome.refused_tactics,
    )


def _check_content(job: _Job) -> None:
    """BundleError where the manifest claims another content: the store is shared by all bundles."""
    if job.ref.content is None:
        return
    has = _content(job.bundle, job.network)
    if has != job.ref.content:
        raise BundleError(
            f"{job.bundle.path}: the engine of {job.segment} is said to compute "
            f"{job.ref.content[:12]}, its network and weights are {has[:12]}",
            hint="build the bundle again",
            wants=job.ref.content,
            has=has,
        )


def _stored(stores: Stores, job: _Job, key: str, facts: Mapping[str, Any]) -> Finished | None:
    found = _usable(stores.engines.get(key), job.ref.kind, facts)
    if found is None:
        return None
    return Finished(
        job.segment,
        job.ref.kind,
        found.path,
        found.record,
        True,
        found.seconds,
        found.built_at,
        key,
    )


def _usable(
    stored: StoredEngine | None, kind: str, facts: Mapping[str, Any]
) -> StoredEngine | None:
    """A stored engine unless its record says that it does not run here.

    A machine without a GPU may keep engines for another: only what the record says against the
    builder's own version counts there.
    """
    if stored is None or not facts.get("gpus"):
        return stored
    try:
        usable = engine_module(kind).check(stored.record, facts).usable
    except KeyError:
        usable = False
    return stored if usable else None


def _job(bundle: Bundle, variant: str, segment: str) -> _Job:
    described = bundle.manifest.variants[variant]
    ref = described.engines[segment]
    network = networks.from_bytes(bundle.member(_networks(bundle, described)[segment]))
    content = ref.content or _content(bundle, network)
    options = _options(bundle, segment, ref)
    return _Job(bundle, variant, segment, ref, options, described.target, network, content)


def _options(bundle: Bundle, segment: str, ref: EngineRef) -> Mapping[str, Any]:
    """What the bundle says, else what its engine for other devices was built with; all of them."""
    try:
        given = ref.options or ref.record.get("options") or {}
        return BuildOptions.from_json(given).to_json()
    except (TypeError, ValueError, KeyError) as error:
        raise BundleError(
            f"{bundle.path}: malformed build options of {segment}: {error}",
            hint="build the bundle again",
        ) from error


def _networks(bundle: Bundle, variant: Variant) -> dict[str, str]:
    """The network members of a variant's segments by name."""
    return {
        segment.name: segment.network
        for member in variant.programs.values()
        for segment in program.from_json(bundle.json(member)).segments
        if segment.network is not None
    }


def _content(bundle: Bundle, network: Network) -> str:
    weights = bundle.weights
    wanted = {constant.data for constant in network.constants.values()}
    digests = {n: hashlib.sha256(v.buffer).hexdigest() for n, v in weights.items() if n in wanted}
    return content_of(network, digests)


def _device(facts: Mapping[str, Any]) -> str | None:
    gpus = facts.get("gpus") or ()
    return gpus[0]["name"] if gpus else None


def _about(job: _Job, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": job.bundle.manifest.name,
        "target": job.variant,
        "segment": job.segment,
        "content": job.content,
        "device": _device(facts),
        "kind": job.ref.kind,
    }
