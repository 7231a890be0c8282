# SPDX-License-Identifier: Apache-2.0
"""Builds on a device what its bundle could not bring: engines that were deferred or do not fit.

What is built goes into the device's engine store, what the tactic search measured into its tactic
store, so the second start builds nothing. Neither is required: where their disk is full or
read-only, the engine lasts as long as the caller's scratch folder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .device_tactics import keep_tactics, known_tactics, prove_locked, provenance, together
from .durations import ago
from .engine_store import EngineStore
from .engines._inductor_build import UncompilableError
from .errors import BuildCancelled, BundleError, ConfigError, DeviceError, EngineBuildError
from .own_engines import estimate
from .progress import OnProgress, Watch
from .segment_jobs import SegmentJob, about_engine, check_content, segment_job, suffix, usable
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
class Workshop:
    """Where this machine builds: its ``facts`` (``device.facts``), its stores, a folder for what
    cannot be stored (``scratch``), and who is told of progress. With ``rebuild`` what is in the
    stores already is built all the same."""

    facts: Mapping[str, Any]
    scratch: Path
    stores: Stores = field(default_factory=Stores)
    on_progress: OnProgress | None = None
    rebuild: bool = False


@dataclass(frozen=True)
class Finished:
    """An engine that this machine built, now or (``cached``) before in ``seconds``.

    ``learnt`` is what is known of the device's tactics after it was built now; ``refused_tactics``
    says what is wrong with what was known before, where TensorRT did not take it; ``kept`` says
    where it is kept, or that it is not, where that is not the user's own store; ``locked`` what was
    proved of the tactics that it was locked to.
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
    kept: str | None = None
    locked: str | None = None

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
        more = "".join(f", {text}" for text in (self.locked, self.kept) if text)
        return f"built here in {self.seconds:.1f} s{anew}{more}"


def finish_segment(
    bundle: Bundle, variant: str, segment: str, shop: Workshop, *, seed: bytes | None = None
) -> Finished:
    """The engine of a segment for this machine: from its store, else built in a child process.

    Two processes that want the same engine at once build it once. ``seed`` is a timing cache to
    begin with besides those of store and bundle.

    Raises:
        DeviceError: this machine cannot build it.
        EngineBuildError: TensorRT or the compiler refused, or its process died.
        BundleError: the bundle is damaged, or was replaced meanwhile.
        ConfigError: the disk refused.
    """
    job = segment_job(bundle, variant, segment)
    why = job.cannot_build(shop.facts)
    if why is not None:
        raise DeviceError(
            f"cannot build {segment} of {variant} here: {why}",
            hint="run it on a device of that kind, trtpack doctor shows what this one is",
        )
    key = job.key(shop.facts)
    if not shop.rebuild and (found := _stored(shop, job, key)):
        return found
    if not shop.rebuild and (why := shop.stores.engines.refused(key)) is not None:
        raise EngineBuildError(
            f"{why}; it was tried before", hint="--rebuild tries again, and so does a week"
        )
    watch = Watch(segment, job.count, shop.on_progress, job.parts)
    began = time.time()
    with _locked(shop.stores.engines, key, watch):
        found = _stored(shop, job, key)
        if found is not None and (not shop.rebuild or found.built_at >= began):
            return found  # another process built it while this one waited
        return _build(job, key, shop, watch, seed)


def finish_variant(
    bundle: Bundle,
    variant: str,
    segments: Sequence[str],
    shop: Workshop,
    *,
    on_failure: OnFailure | None = None,
) -> list[Finished]:
    """The engines of several segments of a variant, each as ``finish_segment`` answers it.

    With ``on_failure`` an engine that cannot be built is told and left out, without it the error is
    raised; a damaged bundle and a cancelled build always are.
    """
    done: list[Finished] = []
    for i, segment in enumerate(segments):
        seed = next((d.learnt.blob for d in reversed(done) if d.learnt is not None), None)
        told = shop.on_progress and _numbered(shop.on_progress, i, len(segments))
        at = replace(shop, on_progress=told)
        try:
            done.append(finish_segment(bundle, variant, segment, at, seed=seed))
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


def _build(job: SegmentJob, key: str, shop: Workshop, watch: Watch, seed: bytes | None) -> Finished:
    facts, stores = shop.facts, shop.stores
    check_content(job)
    caches = job.bundle.manifest.variants[job.variant].caches
    known = known_tactics(job.bundle, caches, job.ref.kind, facts, stores.tactics)
    tactics = seed or together([t.blob for t in known])
    plan = shop.scratch / f"{job.segment}-{key[:12]}{suffix(job.ref.kind)}"
    watch.starts(estimate(stores.engines, job.content, facts))
    began = time.perf_counter()
    try:
        outcome = job.build(plan, facts, tactics, watch.event)
    except UncompilableError as error:
        stores.engines.refuse(key, str(error).splitlines()[0])
        raise
    seconds = time.perf_counter() - began
    if not job.bundle.is_in_place():
        plan.unlink(missing_ok=True)
        raise BundleError(
            f"{job.bundle.path} was replaced while its engines were built",
            hint="run it again",
        )
    learnt, locked = None, None
    if outcome.tactics is not None and job.ref.kind == "tensorrt":
        mine = learnt = Tactics(
            TacticKey.of(facts), outcome.tactics, outcome.entries, provenance(facts, outcome.gpu)
        )
        if job.options.get("locked"):
            count = prove_locked(job.segment, known, mine)
            locked = "locked to an opaque cache"
            if count is not None:
                locked = f"tactics as locked ({count} of {count})"
        used = {seed, *(t.blob for t in known)}
        keep_tactics(stores.tactics, mine, used)
    stored = stores.engines.put(
        key, plan, outcome.record, about=about_engine(job, facts), seconds=seconds
    )
    path = plan
    kept: str | None = "not kept: the disk of the store takes nothing"
    if stored is not None:
        plan.unlink(missing_ok=True)
        path, kept = stored.path, stores.engines.place.told
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
        kept,
        locked,
    )


def _stored(shop: Workshop, job: SegmentJob, key: str) -> Finished | None:
    found = usable(shop.stores.engines.get(key), job.ref.kind, shop.facts)
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
