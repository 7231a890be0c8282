# SPDX-License-Identifier: Apache-2.0
"""Builds what a choice leaves to this machine, then loads it; what fails is left to PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from .bundle import Bundle
from .engine_file import UnreadableEngineError
from .engines import Verdict
from .finish import Finished, Workshop, finish_variant
from .phases import phase
from .resolve import Choice
from .segment_jobs import buildable

T = TypeVar("T")
Make = Callable[[Choice, Mapping[str, Finished], Mapping[str, str]], T]
"""Loads a choice with this machine's own engines and the reasons why others failed, by segment."""


class DeviceBuilds:
    """One machine's builds for one bundle."""

    def __init__(
        self,
        bundle: Bundle,
        shop: Workshop,
        *,
        strict: bool,
    ) -> None:
        self._bundle, self._shop, self._strict = bundle, shop, strict

    def load(self, choice: Choice, make: Make[T], *, build: bool, rebuild: bool) -> T:
        """What ``make`` makes of the choice once its engines are there.

        A stored engine that cannot be loaded is dropped and built once more.

        Raises:
            TrtpackError: (strict) an engine could not be built or loaded; the bundle is damaged.
        """
        wanted = [] if choice.degraded else sorted(choice.chosen.own)
        if rebuild and build and not choice.degraded:
            wanted = sorted(buildable(self._bundle, choice.variant))
        own, failed = self._finish(choice, wanted, rebuild=rebuild)
        while True:
            try:
                return make(_with_own(choice, own, failed), own, failed)
            except UnreadableEngineError as error:
                mine = own.pop(error.segment)
                self._shop.stores.engines.remove(mine.key)
                if mine.cached and build:
                    again, broken = self._finish(choice, [error.segment], rebuild=True)
                    own, failed = {**own, **again}, {**failed, **broken}
                elif self._strict:
                    raise
                else:  # it was built a moment ago: another would be no better
                    failed[error.segment] = error.message

    def _finish(
        self, choice: Choice, segments: Sequence[str], *, rebuild: bool
    ) -> tuple[dict[str, Finished], dict[str, str]]:
        failed: dict[str, str] = {}
        if not segments:
            return {}, failed

        def note(segment: str, error: Exception) -> None:
            if self._strict and segment not in choice.chosen.optional:
                raise error
            failed[segment] = str(error).splitlines()[0]

        with phase("build"):
            done = finish_variant(
                self._bundle,
                choice.variant,
                segments,
                replace(self._shop, rebuild=rebuild),
                on_failure=note,
            )
        return {engine.segment: engine for engine in done}, failed


def _with_own(choice: Choice, own: Mapping[str, Finished], failed: Mapping[str, str]) -> Choice:
    """The choice with what became of this machine's own engines."""
    verdicts = {name: Verdict("exact", engine.told) for name, engine in own.items()}
    verdicts |= {name: Verdict("rebuild", reason) for name, reason in failed.items()}
    if not verdicts:
        return choice
    chosen = replace(choice.chosen.judged(verdicts), own=frozenset(own))
    candidates = tuple(chosen if c is choice.chosen else c for c in choice.candidates)
    return replace(choice, chosen=chosen, candidates=candidates)
