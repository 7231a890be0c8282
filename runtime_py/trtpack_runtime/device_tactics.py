# SPDX-License-Identifier: Apache-2.0
"""The tactics a build on this device begins with, and what becomes of those it measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from .bundle import Bundle
from .errors import BundleError, ConfigError, DeviceError, EngineBuildError
from .tactic_differences import compare
from .tactics import TacticKey, Tactics, TacticStore, from_lock, named


def known_tactics(
    bundle: Bundle,
    caches: Mapping[str, Mapping[str, Any]],
    kind: str,
    facts: Mapping[str, Any],
    store: TacticStore,
) -> list[Tactics]:
    """What the device's store and the bundle know of the tactics of exactly this device. Those of
    the bundle come first, and so stay, where they were chosen or edited.

    Raises:
        EngineBuildError: tactics of the bundle were edited, and TensorRT does not take that.
    """
    if kind != "tensorrt":
        return []
    key, found = TacticKey.of(facts), []
    if (mine := store.read(key)) is not None:
        found.append(mine)
    cache = caches.get("timing")
    if cache is not None and _same_key(cache["key"], key):
        theirs = _of_bundle(bundle, cache, key)
        first = theirs.edited or bool(cache.get("chosen"))
        found.insert(0 if first else len(found), written(theirs))
    return found


def chosen_tactics(bundle: Bundle, caches: Mapping[str, Mapping[str, Any]]) -> list[str] | None:
    """The digests of a timing cache that whoever built the bundle chose for its engines; an engine
    that was built with others does not serve then. None where the device may choose."""
    cache = caches.get("timing") or {}
    if not cache.get("chosen"):
        return None
    members = (cache["member"], cache.get("lock"))
    return [bundle.entries[member].sha256 for member in members if member is not None]


def written(tactics: Tactics) -> Tactics:
    """A timing cache that has what was edited of its entries, once this device's TensorRT has
    written it there; one that nobody edited as it is.

    Raises:
        EngineBuildError: TensorRT does not take it.
        DeviceError: there is no such TensorRT here, or no GPU.
    """
    if not tactics.edited:
        return tactics
    from .engines import _tactics

    blob, entries = _tactics.edit(tactics.blob, tactics.entries or ())
    return replace(
        tactics,
        blob=blob,
        entries=named(entries, tactics.entries),
        measured=False,
        edited=False,
    )


def prove_locked(name: str, known: Sequence[Tactics], built: Tactics) -> int | None:
    """Holds every tactic that was known before a locked build against what the build used; answers
    how many stand, None where they cannot be read. ``name`` is what was built, for errors.

    Raises:
        EngineBuildError: one is another now, or gone.
    """
    entries: dict[str, Mapping[str, Any]] = {}
    for tactics in known:
        for entry in tactics.entries or ():
            entries.setdefault(entry["key"], entry)  # of two, TensorRT keeps the first
    if built.entries is None or all(tactics.entries is None for tactics in known):
        return None
    changed = compare(Tactics(built.key, b"", tuple(entries.values())), built)
    if changed:
        raise EngineBuildError(
            f"{name}: {len(changed)} of {len(entries)} locked tactics changed, first {changed[0]}",
            hint="compare the timing caches with trtpack cache diff",
        )
    return len(entries)


def together(blobs: Sequence[bytes]) -> bytes | None:
    """One timing cache of several; the last where they do not combine, None of none."""
    distinct = list(dict.fromkeys(blobs))
    if len(distinct) < 2:
        return distinct[0] if distinct else None
    from .engines import _tactics

    try:
        return _tactics.combine(distinct)
    except (EngineBuildError, DeviceError, ConfigError):
        return distinct[-1]


def keep_tactics(store: TacticStore, mine: Tactics, used: Collection[bytes | None]) -> None:
    """Keeps what a build measured. It knows what it began with; what another process has kept since
    is combined with it."""

    def combine(blobs: Sequence[bytes]) -> bytes:
        return mine.blob if blobs[0] in used else together(blobs) or mine.blob

    store.put(mine.key, mine, combine)


def provenance(facts: Mapping[str, Any], gpu: Mapping[str, int] | None = None) -> dict[str, Any]:
    """What tactics were measured under and do not depend on; ``gpu`` is what a ``GpuWatch`` saw."""
    jetson, driver = facts.get("jetson") or {}, facts.get("driver") or {}
    found = {"power_mode": jetson.get("power_mode"), "driver": driver.get("version")}
    found |= {name: (gpu or {}).get(name) for name in ("sm_mhz", "memory_mhz", "power_limit_w")}
    return {key: value for key, value in found.items() if value is not None}


def _of_bundle(bundle: Bundle, cache: Mapping[str, Any], key: TacticKey) -> Tactics:
    """A bundle's timing cache, readable where its lock file is and belongs to it."""
    blob = bytes(bundle.member(cache["member"]))
    if cache.get("lock") is not None:
        with suppress(BundleError):
            tactics = from_lock(bytes(bundle.member(cache["lock"])), blob)
            if tactics.key == key:
                return tactics
    return Tactics(key, blob)


def _same_key(value: Mapping[str, Any], key: TacticKey) -> bool:
    try:
        return TacticKey.from_json(value) == key
    except (KeyError, TypeError, ValueError):
        return False  # a key of a newer kind: not of this device as far as can be told
