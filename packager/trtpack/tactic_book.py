# SPDX-License-Identifier: Apache-2.0
"""The tactics a build begins with, learns and stores: of exactly one GPU and one TensorRT."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtpack_runtime.builders import Outcome
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.device_tactics import keep_tactics, provenance
from trtpack_runtime.errors import ConfigError, EngineBuildError
from trtpack_runtime.tactic_differences import compare
from trtpack_runtime.tactics import TacticKey, Tactics, TacticStore, from_lock, named

from .options import Options
from .target import Target
from .target.native import release_of

_CACHE, _LOCK = ".cache", ".lock"


@dataclass(frozen=True)
class TacticUse:
    """Where an engine's tactic search began: ``known`` tactics, None where they cannot be counted,
    in a timing cache of ``nbytes``; ``age_seconds`` where its age is known.

    ``locked`` says that no others might be measured, ``unchanged`` how many were proved to stand as
    they were, None where they cannot be read. Not
    ``on_hardware`` are those that were edited and not measured since.
    """

    nbytes: int = 0
    known: int | None = None
    age_seconds: float | None = None
    locked: bool = False
    unchanged: int | None = None
    on_hardware: bool = True


class TacticBook:
    """The tactics of one build: ``given`` by the user, of the user's ``store``, and learnt."""

    def __init__(
        self,
        options: Options,
        facts: Mapping[str, Any],
        store: TacticStore | None,
        given: Sequence[Tactics] = (),
    ) -> None:
        self._options, self._store, self._given = options, store, tuple(given)
        self._here = TacticKey.of(facts) if facts["gpus"] and facts.get("tensorrt") else None
        self._provenance = provenance(facts)
        self._learnt: Tactics | None = None

    def check_given(self, targets: Iterable[Target]) -> None:
        """Refuses tactics that are of no target.

        Raises:
            ConfigError: it says what they are of.
        """
        targets = tuple(targets)
        for tactics in self._given:
            if tactics.key != self._here and not any(fits(tactics.key, t) for t in targets):
                raise ConfigError(
                    f"{self._options.tactics} has tactics of {key_text(tactics.key)}, which is "
                    f"none of the targets: {', '.join(t.name for t in targets)}",
                    hint="give --tactics of the same GPU and TensorRT, or leave it away",
                )

    def known(self, target: Target) -> Tactics | None:
        """What an engine built here for ``target`` begins with.

        Raises:
            ConfigError: ``locked``, and nothing is known.
        """
        found = self._learnt or self._stored()
        if found is None and self._options.locked:
            raise ConfigError(
                f"no tactics to lock {target.name} to are known: there is no timing cache of "
                f"{self._here_text()}",
                hint="build once without --locked, or give --tactics",
            )
        return found

    def learnt(self, target: Target, outcome: Outcome) -> TacticUse | None:
        """Takes what a build left, and answers what it began with.

        Raises:
            EngineBuildError: ``locked``, and a known tactic is another one now.
        """
        before, stored = self._learnt or self._stored(), self._learnt is None
        use = None
        if before is not None:
            known = None if before.entries is None else len(before.entries)
            age = self._age_seconds() if stored else None
            use = TacticUse(len(before.blob), known, age, on_hardware=before.measured)
        if outcome.tactics is None or self._here is None:
            return use
        entries, measured = outcome.entries, True
        if before is not None:
            entries, measured = named(entries, before.entries), before.measured
        after = Tactics(self._here, outcome.tactics, entries, self._provenance, measured)
        if self._options.locked and use is not None and before is not None:
            use = replace(use, locked=True, unchanged=proved_equal(before, after, target))
        self._learnt = after
        if self._store is not None:
            keep_tactics(self._store, after, {before.blob if before is not None else None})
        return use

    def left_to(self, target: Target) -> TacticUse | None:
        """What the device begins with that builds its engines itself.

        Raises:
            ConfigError: ``locked``, and nothing is known.
        """
        found = self.for_bundle(target, built_here=False)
        if found is not None:
            known = None if found.entries is None else len(found.entries)
            return TacticUse(len(found.blob), known, on_hardware=found.measured)
        if self._options.locked:
            raise ConfigError(
                f"no tactics to lock {target.name} to are known: there is no timing cache of "
                f"SM {target.sm} with its TensorRT",
                hint="give --tactics of such a device, for example a bundle finished there",
            )
        return None

    def for_bundle(self, target: Target, *, built_here: bool) -> Tactics | None:
        """What goes into the bundle for ``target``."""
        if built_here:
            return self._learnt or self._stored()
        return next(iter(self._fitting(target)), None)

    def _stored(self) -> Tactics | None:
        for tactics in self._given:
            if tactics.key == self._here:
                return tactics
        if self._store is None or self._here is None:
            return None
        return self._store.read(self._here)

    def _age_seconds(self) -> float | None:
        """How old the user's store of this machine's tactics is, where it is what is known."""
        if self._store is None or self._here is None:
            return None
        if any(tactics.key == self._here for tactics in self._given):
            return None
        kept = self._store.kept_at(self._here)
        return None if kept is None else max(time.time() - kept, 0.0)

    def _fitting(self, target: Target) -> Iterable[Tactics]:
        """Tactics of GPUs and TensorRTs as a target that builds its engines itself has them."""
        yield from (t for t in self._given if fits(t.key, target))
        if self._store is None:
            return
        yield from (t for t in self._store.entries() if fits(t.key, target))

    def _here_text(self) -> str:
        return "this machine" if self._here is None else key_text(self._here)


def key_text(key: TacticKey) -> str:
    """``NVIDIA H200 (SM 9.0) with TensorRT 8.6.0``."""
    return f"{key.device} (SM {key.sm}) with TensorRT {key.tensorrt}"


def fits(key: TacticKey, target: Target) -> bool:
    """Whether tactics may be those of a target, as far as the target is known."""
    if target.tensorrt is None or key.sm not in (target.sm, *target.sm_also):
        return False
    has = release_of(key.tensorrt)
    shared = min(len(has), len(target.tensorrt))
    return has[:shared] == target.tensorrt[:shared]


def proved_equal(before: Tactics, after: Tactics, target: Target) -> int | None:
    """How many tactics stand as they were locked; None where they cannot be read.

    Raises:
        EngineBuildError: one is another now, or gone.
    """
    if before.entries is None or after.entries is None:
        return None
    changed = compare(before, after)
    if changed:
        raise EngineBuildError(
            f"{target.name}: {len(changed)} of {len(before.entries)} locked tactics changed, "
            f"first {changed[0]}",
            hint="compare the timing caches with trtpack cache diff",
        )
    return len(before.entries)


def read_tactics(path: Path, facts: Mapping[str, Any]) -> tuple[Tactics, ...]:
    """The tactics of a timing cache or a bundle.

    A timing cache has its lock file beside it (``timing.cache`` and ``timing.lock.json``), either
    of which may be named; without one it is taken to be of this machine, which TensorRT checks.

    Raises:
        ConfigError: no such thing, or a cache without a lock file where this machine has no GPU.
        BundleError: a damaged bundle or lock file.
    """
    if tarfile.is_tarfile(path):
        found = _of_bundle(path)
        if not found:
            raise ConfigError(
                f"{path} has no timing cache", hint="give a bundle built on a GPU by TensorRT"
            )
        return found
    stem = path.name.removesuffix(".json").removesuffix(_LOCK).removesuffix(_CACHE)
    cache, lock = path.with_name(stem + _CACHE), path.with_name(f"{stem}{_LOCK}.json")
    if path.suffix != _CACHE and path != lock:
        cache = path
    try:
        blob = cache.read_bytes()
        told = lock.read_bytes() if lock.is_file() else None
    except OSError as error:
        raise ConfigError(
            f"cannot read {cache}: {(error.strerror or str(error)).lower()}",
            hint="a lock file needs its timing cache beside it",
        ) from error
    if told is not None:
        return (from_lock(told, blob),)
    if not facts["gpus"] or not facts.get("tensorrt"):
        raise ConfigError(
            f"{path} does not tell which GPU and TensorRT it is of",
            hint=f"put its {lock.name} beside it",
        )
    return (Tactics(TacticKey.of(facts), blob, None, {}),)


def _of_bundle(path: Path) -> tuple[Tactics, ...]:
    bundle = open_bundle(path)
    found: dict[TacticKey, Tactics] = {}
    for variant in bundle.manifest.variants.values():
        cache = variant.caches.get("timing")
        if cache is None:
            continue
        blob = bytes(bundle.member(cache["member"]))
        if cache.get("lock") is not None:
            tactics = from_lock(bytes(bundle.member(cache["lock"])), blob)
        else:
            tactics = Tactics(TacticKey.from_json(cache["key"]), blob, None, {})
        found.setdefault(tactics.key, tactics)
    return tuple(found.values())
