# SPDX-License-Identifier: Apache-2.0
"""The search itself: build a candidate, measure it in turns with the usual and the best, log it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from trtpack_runtime.errors import BuildCancelled, CompileError, DeviceError, SmokeFailure

from ..options import Options
from ..remote.device import ConnectionLost
from ..remote.ssh import UnreachableError
from ..report import BuildReport
from ..trial_log import TrialLog
from .comparing import WORTH, Interval, Outcome, compare, interval
from .measuring import HERE, Candidate, Say, Turns, Where
from .space import Setting, flags
from .suggesting import suggest
from .trials import BEST, FAILED, USUAL, Trial, is_better, pareto

PATIENCE = 10
"""After so many trials in a row that won nothing, the rest is not waited for."""
REBUILDS = 2
"""How often the best is built again where a build measures and so depends on chance."""
FINAL_LOOKS = (16, 32)
_OF_ENGINES = ("of_usual", "latency_of_usual", "per_second_of_usual", "memory_bytes")
"""What trials of the same engines have alike."""


@dataclass(frozen=True)
class Built:
    """A candidate's bundle, the report of its build, and digests of what it runs."""

    bundle: Path
    report: BuildReport
    content: str
    engine_bytes: int
    seconds: float


Make = Callable[[Mapping[str, Any], int], Built]
"""Builds settings; the number says how often they were built before, so that it is done anew."""


@dataclass
class Search:
    """All that a search works with; ``run`` is the search."""

    make: Make
    space: tuple[Setting, ...]
    options: Options
    target: str
    log: TrialLog
    say: Say
    where: Where = HERE
    spent_s: float = 0.0  # of the budget, when it begins
    now: Callable[[], float] = time.monotonic
    trials: list[Trial] = field(default_factory=list)
    shipped: Built | None = None

    def run(self, usual: Built) -> dict[str, Any]:
        """Searches; ``shipped`` is then what is best, the answer what there is to tell."""
        self.begin = self.now() - self.spent_s
        with ExitStack() as stack:
            self._stack = stack
            self.usual, self.shipped = self._loaded(usual), usual
            self.best, self.best_trial = self.usual, 0
            resumed = self._resume()
            if not self.trials:
                self._first(usual)
            self.builds = {0: usual}
            self._load_best()
            ended = self._trials()
            self._rebuild()
            final = self._confirm()
        shipped = self.best_trial if self.shipped is not usual else 0
        return {
            "optimize": self.options.optimize,
            "device": self.usual.device,
            "trials": [trial.to_json() for trial in self.trials],
            "resumed": resumed,
            "ended": ended,
            "best": self.best_trial,
            "shipped": shipped,
            "flags": flags(self.trials[shipped].settings),
            "final": final,
            "pareto": list(pareto(self.trials)),
            "log": str(self.log.path),
        }

    def _loaded(self, built: Built) -> Candidate:
        return self._stack.enter_context(Candidate(built.bundle, self.target, self.where))

    def _resume(self) -> int:
        self.trials = [Trial.from_json(line) for line in self.log.lines]
        for trial in self.trials:
            if trial.state == BEST:
                self.best_trial = trial.number
        return len(self.trials)

    def _first(self, usual: Built) -> None:
        begin = self.now()
        turns = Turns([self.usual])
        self.where.settle()
        for _ in range(3):
            turns.round()
        trial = Trial(0, {}, USUAL, build_seconds=round(usual.seconds, 3))
        self._note(self._figures(trial, usual, self.usual, begin))

    def _load_best(self) -> None:
        """The best of an earlier process, built again: its engine comes from the cache."""
        if not self.best_trial:
            return
        trial = self.trials[self.best_trial]
        self.say(f"build trial {trial.number} again: {flags(trial.settings)}")
        self.shipped = self.builds[trial.number] = self.make(trial.settings, 0)
        self.best = self._loaded(self.shipped)

    def _trials(self) -> str:
        """Tries until nothing is left to try or to win; answers why it ended."""
        options = self.options
        while True:
            count = sum(not trial.rebuild for trial in self.trials)
            if options.trials is not None and count >= options.trials:
                return f"{count} trials, as was asked"
            if options.budget_minutes is not None:
                if self._left_s() <= self._rebuilds_s():
                    return f"{options.budget_minutes:g} minutes, as was asked"
            elif options.trials is None and self._since_best() >= PATIENCE:
                return f"the last {PATIENCE} trials won nothing"
            tried = [(t.settings, self._told(t)) for t in self.trials if not t.rebuild]
            settings = suggest(self.space, tried, options.seed)
            if settings is None:
                return "every combination was tried"
            self._try(settings)

    def _left_s(self) -> float:
        """What is left of the budget; without end where there is none."""
        budget = self.options.budget_minutes
        return math.inf if budget is None else self.begin + budget * 60 - self.now()

    def _rebuilds_s(self) -> float:
        """What building the best again will take of the budget, by what trials took; nothing is
        kept for the usual settings."""
        measured = (t for t in self.trials if t.state not in (FAILED, "same"))
        took = [t.build_seconds + t.measure_seconds for t in measured]
        return self._rebuilds_left() * median(took) if self.best_trial else 0.0

    def _since_best(self) -> int:
        last = max(self.best_trial, len(self.space))
        return sum(trial.number > last and not trial.rebuild for trial in self.trials)

    def _told(self, trial: Trial) -> float | None:
        """What the sampler is to make smaller."""
        if self.options.optimize != "memory" or trial.memory_bytes is None:
            return trial.time
        return trial.memory_bytes / (self.trials[0].memory_bytes or 1)

    def _try(self, settings: Mapping[str, Any], rebuild: int = 0) -> None:
        number = len(self.trials)
        again = f", built again ({rebuild})" if rebuild else ""
        name = f"trial {number}: {flags(settings) or 'as it is'}{again}"
        self.say(name)
        begin = self.now()
        trial = Trial(number, dict(settings), FAILED, rebuild=rebuild)
        try:
            built = self.make(settings, rebuild)
            trial = replace(
                trial, content=built.content, build_seconds=round(self.now() - begin, 3)
            )
            if (same := self._same(built)) is not None:
                self._drop(built)
                figures = {n: getattr(same, n) for n in _OF_ENGINES}
                figures["engine_bytes"] = built.engine_bytes
                why = f"its engines are those of trial {same.number}"
                self._note(replace(trial, state="same", why=why, **figures))
                return
            self.say(f"{name}; measure")
            self._measure(trial, built)
        except (BuildCancelled, KeyboardInterrupt, ConnectionLost, UnreachableError):
            raise
        except (CompileError, DeviceError, SmokeFailure) as error:
            if not (self.usual.is_alive and self.best.is_alive):
                raise  # it is not the candidate's fault
            self._note(replace(trial, state=FAILED, why=str(error).splitlines()[0]))

    def _same(self, built: Built) -> Trial | None:
        return next(
            (t for t in self.trials if t.content == built.content and t.time is not None), None
        )

    def _measure(self, trial: Trial, built: Built) -> None:
        begin = self.now()
        candidate = Candidate(built.bundle, self.target, self.where)
        try:
            outcome, of_best, of_usual, rounds = self._compared(candidate)
        except BaseException:
            candidate.close()
            self._drop(built)
            raise
        better, state = is_better(
            candidate.memory_bytes,
            self.best.memory_bytes,
            outcome,
            self.options.optimize,
            WORTH,
        )
        trial = replace(
            trial,
            state=state,
            of_usual=of_usual,
            of_best=of_best,
            rounds=rounds,
            latency_of_usual=_share(candidate.ms, self.usual.ms),
            per_second_of_usual=_share(candidate.per_second, self.usual.per_second),
        )
        trial = self._figures(trial, built, candidate, begin)
        if not better:
            candidate.close()
            self._drop(built)
            self._note(trial)
            return
        if self.best is not self.usual:
            self.best.close()
            self._drop(self.builds.pop(self.best_trial))
        self._stack.enter_context(candidate)
        self.best, self.best_trial, self.shipped = candidate, trial.number, built
        self.builds[trial.number] = built
        self._note(trial)

    def _compared(self, candidate: Candidate) -> tuple[Outcome, Interval, Interval, int]:
        """Against the best, and against the usual in the same rounds."""
        others = [self.usual] if self.best is self.usual else [self.usual, self.best]
        turns = Turns([*others, candidate], self._by)
        of_usual: list[float] = []
        self.where.settle()

        def one() -> float:
            *taken, mine = turns.round()
            of_usual.append(mine / taken[0])
            return mine / taken[-1]

        outcome, of_best, rounds = compare(one)
        return outcome, of_best, interval(of_usual), rounds

    @property
    def _by(self) -> str:
        return "per_second" if self.options.optimize == "throughput" else "ms"

    def _figures(self, trial: Trial, built: Built, candidate: Candidate, begin: float) -> Trial:
        return replace(
            trial,
            latency_ms=median(candidate.ms),
            per_second=median(candidate.per_second),
            memory_bytes=candidate.memory_bytes,
            engine_bytes=built.engine_bytes,
            content=built.content,
            measure_seconds=round(self.now() - begin, 3),
        )

    def _rebuild(self) -> None:
        """The best built again where builds are measured, which chance has a part in."""
        settings = self.trials[self.best_trial].settings
        while (left := self._rebuilds_left(settings)) and self._left_s() > 0:
            self._try(settings, REBUILDS + 1 - left)

    def _rebuilds_left(self, settings: Mapping[str, Any] | None = None) -> int:
        """How often settings, the best ones where none are given, are still to be built again."""
        chosen = self.trials[self.best_trial].settings if settings is None else settings
        measured = any(
            engine.kind == "tensorrt"
            for target in self.builds[0].report.targets
            for engine in target.engines
        ) or chosen.get("max_autotune")
        if not measured or self.options.optimize == "memory":
            return 0
        return REBUILDS - sum(bool(t.rebuild) and t.settings == chosen for t in self.trials)

    def _confirm(self) -> dict[str, Any] | None:
        """The best against the usual once more; what is not faster then is not shipped."""
        if self.best is self.usual:
            return None
        self.say("hold the best against the usual settings once more")
        turns = Turns([self.usual, self.best], self._by)
        self.where.settle()

        def one() -> float:
            usual, best = turns.round()
            return best / usual

        outcome, of_usual, rounds = compare(one, FINAL_LOOKS)
        if self.options.optimize == "memory":
            outcome = "faster"
        if outcome != "faster":
            self.shipped = self.builds[0]
        return {"outcome": outcome, "of_usual": of_usual.to_json(), "rounds": rounds}

    def _note(self, trial: Trial) -> None:
        self.trials.append(trial)
        self.log.append(trial.to_json())

    def _drop(self, built: Built) -> None:
        built.bundle.unlink(missing_ok=True)


def _share(values: Sequence[float], usual: Sequence[float]) -> float:
    """The median of a new candidate's figures to the usual one's of the same rounds, which are its
    last ones."""
    own = usual[len(usual) - len(values) :]
    return median(mine / its for mine, its in zip(values, own, strict=True))
