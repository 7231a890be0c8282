# SPDX-License-Identifier: Apache-2.0
"""What a machine has built, or can build, in the place of engines that do not fit it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from .bundle import Bundle
from .durations import about, ago
from .engine_store import EngineStore
from .manifest import EngineRef, Variant
from .resolve import OwnEngine, verdict_of
from .segment_jobs import buildable, cannot_build, device_name, segment_job, usable


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
    why = cannot_build(ref.kind, variant.target, facts, to_run=True)
    if why is not None:
        if verdict.fit != "rebuild":
            return None
        begin = "not built yet" if ref.member is None else verdict.reason
        return OwnEngine("rebuild", f"{begin}, and cannot be built here: {why}")
    job = segment_job(bundle, name, segment)
    if store is not None and (stored := usable(store.get(job.key(facts)), ref.kind, facts)):
        when = ago(time.time() - stored.built_at)
        return OwnEngine("exact", f"from the store, built on this device {when}")
    if verdict.usable:
        return None
    if not build:
        if ref.member is not None:
            return None
        return OwnEngine("rebuild", "not built on this device yet, and building is switched off")
    seconds = None if store is None else estimate(store, job.content, facts)
    count = f"{job.count} {job.parts}"
    hint = count if seconds is None else f"{about(seconds)}: {count}"
    return OwnEngine("builds", f"builds here at its first run ({hint})", seconds)


def estimate(store: EngineStore, content: str, facts: Mapping[str, Any]) -> float | None:
    """How long the last build of the same content on such a device took, in seconds."""
    device = device_name(facts)
    past = [
        e
        for e in store.entries()
        if e.about.get("content") == content and e.about.get("device") == device
    ]
    return max(past, key=lambda e: e.built_at).seconds if past else None
