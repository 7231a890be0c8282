# SPDX-License-Identifier: Apache-2.0
"""Puts engines that other machines built into a bundle, by way of the stores of this one.

An engine is kept here by the key that its builder's machine gives it, so any worker of that kind
has it the next time, whichever built it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtpack_runtime.builders import BUILDERS
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.device_tactics import keep_tactics
from trtpack_runtime.engine_store import EngineStore, StoredEngine
from trtpack_runtime.errors import ConfigError, EngineBuildError, InternalError
from trtpack_runtime.farm.engines import tactics_of
from trtpack_runtime.finish import Stores, Workshop
from trtpack_runtime.finish_bundle import finish_bundle
from trtpack_runtime.segment_jobs import about_engine, buildable, segment_job
from trtpack_runtime.tactics import TacticStore

from .report import EngineResult

_NO_LIMIT = 1 << 62


@dataclass(frozen=True)
class Unfinished:
    """A bundle, and the segments of one of its variants whose engines somebody else is to build."""

    path: Path
    variant: str
    segments: tuple[str, ...]

    @staticmethod
    def of(path: Path) -> Unfinished | None:
        """What the bundle at ``path`` lacks; None where it lacks nothing that a device builds."""
        bundle = open_bundle(path)
        for variant in bundle.manifest.variants:
            refs = buildable(bundle, variant)
            lacking = sorted(
                name for name, ref in refs.items() if ref.member is None and ref.kind in BUILDERS
            )
            if lacking:
                return Unfinished(path, variant, tuple(lacking))
        return None


def stored(
    unfinished: Unfinished, facts: Mapping[str, Any], store: EngineStore
) -> dict[str, StoredEngine] | None:
    """All its engines for a machine of these facts, as this host's store has them; None where one
    is missing."""
    bundle = open_bundle(unfinished.path)
    found = {}
    for segment in unfinished.segments:
        entry = store.get(segment_job(bundle, unfinished.variant, segment).key(facts))
        if entry is None:
            return None
        found[segment] = entry
    return found


def finish_with_stored(
    unfinished: Unfinished,
    engines: Mapping[str, StoredEngine],
    facts: Mapping[str, Any],
    output: Path,
    kept: Stores,
) -> tuple[EngineResult, ...]:
    """Writes the bundle with engines of this host's store to ``output``.

    Raises:
        TrtpackError: as ``finish_bundle``.
    """
    bench = _bench(facts, unfinished.path.parent, kept.tactics)
    for entry in engines.values():
        _put(bench.stores.engines, entry.key, entry.path, entry.record, _origin(entry))
    _finish(unfinished, output, bench)
    return tuple(_cached(segment, entry) for segment, entry in engines.items())


def finish_with_answer(
    unfinished: Unfinished,
    answer: Mapping[str, Any],
    worker: str,
    output: Path,
    kept: Stores | None,
) -> tuple[EngineResult, ...]:
    """Writes the bundle with the engines that a worker answered to ``output``, and keeps them in
    ``kept``, this host's stores.

    Raises:
        TrtpackError: as ``finish_bundle``.
    """
    folder, facts = unfinished.path.parent, json.loads(answer["facts"])
    tactics = kept.tactics if kept is not None else TacticStore(folder / "tactics")
    bench = _bench(facts, folder, tactics)
    bundle = open_bundle(unfinished.path)
    answered = {engine["segment"]: engine for engine in answer["engines"]}
    if set(answered) != set(unfinished.segments):
        raise EngineBuildError(
            f"worker {worker} answered engines of {', '.join(answered) or 'nothing'}, wanted "
            f"{', '.join(unfinished.segments)}",
            hint="install one release of trtpack on all machines",
        )
    for segment, engine in answered.items():
        plan = folder / f"{segment}.answered"
        plan.write_bytes(engine["plan"])
        job = segment_job(bundle, unfinished.variant, segment)
        key, record = job.key(facts), json.loads(engine["record"])
        told = {"about": about_engine(job, facts), "seconds": engine["seconds"]}
        _put(bench.stores.engines, key, plan, record, told)
        if kept is not None:
            kept.engines.put(key, plan, record, **told)
        if (learnt := tactics_of(engine)) is not None:
            keep_tactics(tactics, learnt, ())
        plan.unlink()
    _finish(unfinished, output, bench)
    return tuple(_built(engine, worker) for engine in answered.values())


def _cached(segment: str, entry: StoredEngine) -> EngineResult:
    age = max(0.0, time.time() - entry.built_at)
    kind = str(entry.about.get("kind", ""))
    return EngineResult(segment, kind, entry.nbytes, entry.seconds, cached=True, age_seconds=age)


def _built(engine: Mapping[str, Any], worker: str) -> EngineResult:
    age = max(0.0, time.time() - engine["built_at"]) if engine["cached"] else 0.0
    return EngineResult(
        engine["segment"],
        engine["kind"],
        len(engine["plan"]),
        engine["seconds"],
        engine["cached"],
        age,
        worker,
    )


def _origin(entry: StoredEngine) -> dict[str, Any]:
    return {"about": entry.about, "seconds": entry.seconds}


def _bench(facts: Mapping[str, Any], folder: Path, tactics: TacticStore) -> Workshop:
    """A workshop that has only the engines put into it, on the disk of the bundle."""
    return Workshop(facts, folder, Stores(EngineStore(folder / "engines", _NO_LIMIT), tactics))


def _put(
    store: EngineStore, key: str, path: Path, record: Mapping[str, Any], told: Mapping[str, Any]
) -> None:
    if store.put(key, path, record, **told) is None:
        raise ConfigError(
            f"cannot write {store.folder}: no space left on device",
            hint="free space on the disk of the output folder",
        )


def _finish(unfinished: Unfinished, output: Path, bench: Workshop) -> None:
    finished = finish_bundle(open_bundle(unfinished.path), output, bench, compiled=False)
    if any(not engine.cached for engines in finished.engines.values() for engine in engines):
        raise InternalError(f"{output} was to have engines that were built elsewhere")
