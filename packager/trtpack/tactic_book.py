# SPDX-License-Identifier: Apache-2.0
"""The tactics a build begins with, learns and stores: of exactly one GPU and one TensorRT."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trtpack_runtime.builders import Outcome
from trtpack_runtime.device_tactics import keep_tactics, prove_locked, provenance, written
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.tactics import TacticKey, Tactics, TacticStore, named
from trtpack_tools.cache_files import tactics_in

from .options import Options
from .report import TacticReport
from .target import Target
from .target.native import release_of


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
        self._facts, self._here = facts, key_of(facts)
        self._learnt: Tactics | None = None

    def check_given(self, here: Collection[Target], elsewhere: Collection[Target]) -> None:
        """Refuses tactics that are of no target: neither of this machine, where engines are built
        ``here``, nor as far as is known of a target that is built ``elsewhere``.

        Raises:
            ConfigError: it says what they are of.
        """
        for tactics in self._given:
            mine = bool(here) and tactics.key == self._here
            if mine or any(fits(tactics.key, target) for target in elsewhere):
                continue
            told = [*(f"{t.name} ({self._here})" for t in here), *map(_told, elsewhere)]
            raise ConfigError(
                f"{self._options.tactics} has tactics of {tactics.key}, which is "
                f"none of the targets: {', '.join(told)}",
                hint="give --tactics of the same GPU and TensorRT, or leave it away",
            )

    @property
    def chosen(self) -> str | None:
        """The sha256 of the tactics that the user gives for what is built here, in hex; None where
        none are given. An engine that was built with others does not serve then."""
        given = (tactics for tactics in self._given if tactics.key == self._here)
        return next((hashlib.sha256(tactics.blob).hexdigest() for tactics in given), None)

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

    def learnt(self, target: Target, outcome: Outcome) -> TacticReport | None:
        """Takes what a build left, and answers what it began with.

        Raises:
            EngineBuildError: ``locked``, and a known tactic is another one now.
        """
        before, stored = self._learnt or self._stored(), self._learnt is None
        use = None
        if before is not None:
            known = None if before.entries is None else len(before.entries)
            age = self._age_seconds() if stored else None
            use = TacticReport(
                len(before.blob),
                known,
                age,
                on_hardware=before.measured,
                refused=outcome.refused_tactics,
            )
        if outcome.tactics is None or self._here is None:
            return use
        entries = named(outcome.entries, None if before is None else before.entries)
        told = provenance(self._facts, outcome.gpu)
        after = Tactics(self._here, outcome.tactics, entries, told)
        if self._options.locked and use is not None and before is not None:
            unchanged = prove_locked(target.name, [before], after)
            use = replace(use, locked=True, unchanged=unchanged)
        self._learnt = after
        if self._store is not None:
            keep_tactics(self._store, after, {before.blob if before is not None else None})
        return use

    def left_to(self, target: Target) -> TacticReport | None:
        """What the device begins with that builds its engines itself.

        Raises:
            ConfigError: ``locked``, and nothing is known.
        """
        found = self.for_bundle(target, built_here=False)
        if found is not None:
            known = None if found.entries is None else len(found.entries)
            locked, on_hardware = self._options.locked, found.measured
            return TacticReport(len(found.blob), known, locked=locked, on_hardware=on_hardware)
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

    def chosen_for(self, target: Target) -> bool:
        """Whether the user says which tactics a device that builds for ``target`` begins with."""
        return self._options.locked or any(fits(tactics.key, target) for tactics in self._given)

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
        return "this machine" if self._here is None else str(self._here)


def key_of(facts: Mapping[str, Any]) -> TacticKey | None:
    """Whose tactics TensorRT measures on a machine; None where it measures none."""
    return TacticKey.of(facts) if facts["gpus"] and facts.get("tensorrt") else None


def fits(key: TacticKey, target: Target) -> bool:
    """Whether tactics may be those of a target, as far as the target is known."""
    if target.tensorrt is None or key.sm not in (target.sm, *target.sm_also):
        return False
    has = release_of(key.tensorrt)
    shared = min(len(has), len(target.tensorrt))
    return has[:shared] == target.tensorrt[:shared]


def _told(target: Target) -> str:
    """A target's name, with what its tactics are of where it has TensorRT."""
    if target.tensorrt is None or not target.sm:
        return target.name
    return f"{target.name} (SM {target.sm}, TensorRT {'.'.join(map(str, target.tensorrt))})"


def read_tactics(path: Path, facts: Mapping[str, Any]) -> tuple[Tactics, ...]:
    """The tactics of a timing cache, a bundle, or what ``trtpack cache export`` wrote.

    A timing cache without a lock file beside it is taken to be of this machine, which TensorRT
    checks. What was edited of this machine's is written into it.

    Raises:
        ConfigError: no such thing, or a cache without a lock file where this machine has no GPU.
        BundleError: a damaged bundle or lock file.
        EngineBuildError: TensorRT does not take what was edited.
    """
    here = key_of(facts)
    return tuple(written(t) if t.key == here else t for t in tactics_in(path, here))
