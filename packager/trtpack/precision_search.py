# SPDX-License-Identifier: Apache-2.0
"""``--precision auto``: the cheapest precisions that keep a budget, found without a GPU.

For every kind of few bits that data and targets allow, everything begins in that. How much each
product loses there is measured by rounding it alone; then as few products as the budget needs are
taken back to float16, first those that lose most for the time they save. INT4, which is for weights
alone, is tried for all of them or none. Every trial is a whole lowering, run on samples and held to
the budget, so what is found keeps it on them; the golden samples, which it has not seen, judge it
again. The same model, data and seed give the same plan, and what a log knows is not done again.

Times are the targets' rooflines (``precision_times.py``); ``precision_measuring.py`` measures the
plan where a target is at hand.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import fx

from trtpack_runtime import __version__

from .accuracy.budgets import excess, missed, told, worst
from .accuracy.eager import answers, as_model
from .accuracy.figures import Answers, figures_of
from .accuracy.metric import Held
from .calibration.cache import graph_key
from .calibration.request import Quantization
from .capture import Captured
from .errors import AccuracyError
from .golden import GoldenSample
from .lowering import Lowered, lower, own_graph
from .options import Budget, Pin, PrecisionName
from .output_names import output_names
from .precision.plan import Request, Sample
from .precision.running import run_graph
from .precision_times import Work, share, time_of, work_of
from .quantization.operators import FAKE_QUANTIZE
from .target import Target
from .trial_log import TrialLog

FORMAT = 2
"""Of what a log keeps of a trial; logs of another are not read."""
MOST_SAMPLES = 4
"""On so many calibration samples plans are tried."""
KINDS: tuple[tuple[str, PrecisionName], ...] = (("INT8", "int8"), ("FP8", "fp8"), ("INT4", "int4"))
"""TensorRT's names of the types of few bits, and the precisions that have them, as they are tried.
"""
_PRECISIONS = dict(KINDS)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What every trial keeps: the budgets, the user's pins, whether weights are pruned, and the
    user's own metric."""

    budgets: Sequence[Budget]
    pins: tuple[Pin, ...] = ()
    pruned: bool = False
    metric: Held | None = None


@dataclass(frozen=True)
class Trial:
    """One plan: the products of the ``kept`` places stay in float16, ``time`` is what all take, as
    a share of that in float16; ``failures`` are the bounds it breaks, ``excess`` by how much of
    what they allow. ``figures`` are what the budgets are of at their worst, and the user's
    ``metric``."""

    precision: PrecisionName
    kept: tuple[str, ...]
    figures: Mapping[str, float]
    time: float
    excess: float = 0.0
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = len(self.kept)
        back = f" with {count} {'place' if count == 1 else 'places'} in fp16" if count else ""
        return self.precision + back

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for a number that is not finite."""
        return {
            "precision": self.precision,
            "in_fp16": list(self.kept),
            "figures": {name: _finite(value) for name, value in self.figures.items()},
            "time_of_fp16": round(self.time, 4),
            "missed_by": _finite(self.excess),
            "misses": list(self.failures),
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Trial:
        """The trial of its plain values."""
        return cls(
            line["precision"],
            tuple(line["in_fp16"]),
            {name: _number(value) for name, value in line["figures"].items()},
            line["time_of_fp16"],
            _number(line["missed_by"]),
            tuple(line["misses"]),
        )


@dataclass
class Found:
    """The plan that was chosen, and every trial on the way; ``lost`` is the relative L2 error of
    the outputs where the products of one place alone are quantized, for the first kind that was
    tried. A place is a module's path, or the name of a product that is in none. ``resumed`` counts
    what an earlier search had found out."""

    precision: PrecisionName
    pins: tuple[Pin, ...] = ()
    trials: list[Trial] = field(default_factory=list)
    lost: dict[str, float] = field(default_factory=dict)
    resumed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "precision": self.precision,
            "pins": list(map(str, self.pins)),
            "trials": [trial.to_json() for trial in self.trials],
            "lost": dict(self.lost),
            "resumed": self.resumed,
        }


def search(
    captured: Captured,
    samples: Sequence[Sample],
    asked: Asked,
    targets: Sequence[Target],
    quantizations: Sequence[Quantization],
    say: Say = lambda text: None,
    log: TrialLog | None = None,
) -> Found:
    """The cheapest plan that keeps the budgets on samples; ``quantizations`` are the kinds of few
    bits that are tried, ``log`` that of this very search.

    Raises:
        AccuracyError: not even float32 keeps them; it tells the best that was found.
    """
    samples = samples[:MOST_SAMPLES]
    return _Search(captured, samples, asked, targets, quantizations, say, log).run()


def search_key(
    captured: Captured,
    samples: Sequence[Sample],
    asked: Asked,
    targets: Sequence[Target],
    quantizations: Sequence[Quantization],
) -> str:
    """A digest of everything that a search's results depend on."""
    digest = hashlib.sha256(graph_key(captured.graph_module).encode())
    told: list[object] = [FORMAT, torch.__version__, __version__, asked]
    told += [(target.name, target.peak) for target in targets]
    told += [(one.dtype, one.observer, one.weight_block) for one in quantizations]
    digest.update("\n".join(map(repr, told)).encode())
    for sample in samples:
        for name, value in sample.items():
            digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(
                value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
    return digest.hexdigest()


class _Search:
    def __init__(
        self,
        captured: Captured,
        samples: Sequence[Sample],
        asked: Asked,
        targets: Sequence[Target],
        quantizations: Sequence[Quantization],
        say: Say,
        log: TrialLog | None,
    ) -> None:
        self.captured, self.samples, self.asked = captured, samples, asked
        self.targets, self.say, self.log = targets, say, log
        self.quantizations = {_PRECISIONS[one.dtype]: one for one in quantizations}
        names = [name for name in captured.inputs if name is not None]
        self.golden = [GoldenSample(tuple(s[name] for name in names), (), {}) for s in samples]
        self.wanted = self._answers(self._lowered(None, ()))
        self.made = Found("fp32")
        self.work: dict[PrecisionName, dict[str, Work]] = {}
        self.whole: dict[str, Work] = {}
        self.known = {line["of"]: line["found"] for line in log.lines} if log else {}

    def run(self) -> Found:
        best: Trial | None = None
        few = {precision: self._lowered(precision, ()) for precision in self.quantizations}
        self.work = {precision: work_of(lowered) for precision, lowered in few.items()}
        for work in self.work.values():
            self.whole = {**work, **self.whole}
        for precision, work in self.work.items():
            if not work or (best and self._share(precision, ()) >= best.time):
                continue  # it has nothing to round, or cannot win
            found = self._fewest(precision, few[precision])
            if found is not None and (best is None or found.time < best.time):
                best = found
        if best is not None and best.time < 1:
            self.made.precision, self.made.pins = best.precision, _pins(best.kept)
            return self.made
        wider: tuple[PrecisionName, ...] = ("mixed", "fp32")
        for precision in wider:
            trial = self._try(precision, ())
            if not trial.failures:
                self.made.precision = trial.precision
                return self.made
        if best is not None:
            self.made.precision, self.made.pins = best.precision, _pins(best.kept)
            return self.made
        best = min(self.made.trials, key=lambda trial: (trial.excess, trial.time))
        hint = "choose another budget"
        if self.asked.metric is not None and self.asked.metric.is_beyond:
            hint += ", one that the model itself keeps"
        elif not best.kept:
            hint += f", or take --precision {best.precision} without one"
        raise AccuracyError(
            f"no precision keeps the budget: the best found is {best}, where "
            f"{'; '.join(best.failures)}",
            hint=hint,
        )

    def _share(self, precision: PrecisionName, kept: Sequence[str]) -> float:
        """What all products that any kind rounds take as a share of their time in float16."""
        left = self.whole.keys() - self.work.get(precision, self.whole).keys()
        return share(self.whole, precision, {*kept, *left}, self.targets)

    def _order(self, precision: PrecisionName, few: Lowered) -> list[str]:
        """The places, first those that lose most for the time that they save."""
        lost: dict[str, float] = {}
        work = self.work[precision]
        for number, (name, one) in enumerate(work.items(), 1):
            self.say(f"quantize {name} alone to {precision}, {number} of {len(work)}")
            key = f"{precision} of {name} alone"
            lost[name] = self._once(key, partial(self._lost, few, one.reads))
        self.made.lost = self.made.lost or lost

        def gain(one: Work) -> float:
            target = self.targets[0] if self.targets else None
            return time_of(one, "mixed", target) - time_of(one, precision, target)

        return sorted(work, key=lambda name: -lost[name] / max(gain(work[name]), 1e-30))

    def _once(self, key: str, find: Callable[[], Any]) -> Any:
        """What is found, or what the log has of it."""
        if key in self.known:
            self.made.resumed += 1
            return self.known[key]
        found = find()
        if self.log is not None:
            self.log.append({"of": key, "found": found})
        return found

    def _lost(self, few: Lowered, alone: frozenset[str]) -> float:
        """The relative L2 error of the outputs where these values alone are rounded."""
        graph = few.captured.graph_module
        unrounded: dict[str, Any] = {}

        def prepare(node: fx.Node, arguments: Any) -> Any:
            if node.target is FAKE_QUANTIZE and node.name not in alone:
                unrounded[node.name] = arguments[0]
            return arguments

        def watch(node: fx.Node, value: Any) -> Any:
            return unrounded.pop(node.name, value)

        worst = 0.0
        for sample, wanted in zip(self.samples, self.wanted, strict=True):
            got = run_graph(graph, sample, watch, prepare)
            places = output_names(self.captured).values()
            for place, want in zip(places, wanted, strict=False):
                if want.is_floating_point() and want.numel():
                    lost = (got[place].double() - want.double()).norm()
                    worst = max(worst, float(lost / want.double().norm().clamp(min=1e-30)))
        return worst

    def _fewest(self, precision: PrecisionName, few: Lowered) -> Trial | None:
        """The trial with the fewest places in float16 that keeps the budget; None if none does.

        One more place in float16 is taken never to make it worse.
        """
        if self.quantizations[precision].weights_only:
            best = self._try(precision, ())
            return None if best.failures else best
        order = self._order(precision, few)
        best = self._try(precision, ())
        if not best.failures:
            return best
        low, high, found = 0, len(order), None
        while high - low > 1:
            count = (low + high) // 2
            trial = self._try(precision, tuple(order[:count]))
            if trial.failures:
                low = count
            else:
                high, found = count, trial
        return found

    def _try(self, precision: PrecisionName, kept: tuple[str, ...]) -> Trial:
        self.say(f"try {precision}" + (f" with {len(kept)} places in fp16" if kept else ""))

        def find() -> dict[str, Any]:
            lowered = self._lowered(precision, _pins(kept))
            got = self._answers(lowered)
            figures = figures_of(list(output_names(self.captured)), got, self.wanted)
            misses = list(missed(self.asked.budgets, figures))
            found, broken = worst(self.asked.budgets, figures), [told(*miss) for miss in misses]
            beyond = max((excess(*miss) for miss in misses), default=0.0)
            if (metric := self.asked.metric) is not None:
                run = as_model(lowered.captured, lowered.captured.graph_module)
                value = found["metric"] = metric.metric.of(run)
                broken += filter(None, [metric.broken(value)])
                beyond = max(beyond, metric.excess(value))
            time = self._share(precision, kept)
            return Trial(precision, kept, found, time, beyond, tuple(broken)).to_json()

        key = f"{precision} but for {json.dumps(kept)}"
        trial = Trial.from_json(self._once(key, find))
        self.made.trials.append(trial)
        return trial

    def _lowered(self, precision: PrecisionName | None, pins: tuple[Pin, ...]) -> Lowered:
        own = own_graph(self.captured)
        if precision is None:
            return lower(own)
        pins = (*pins, *self.asked.pins)
        few = self.quantizations.get(precision)
        return lower(
            own,
            precision=Request(precision, pins, tuple(self.samples)),
            quantization=None if few is None else replace(few, pins=pins, partial=True),
            pruned=self.asked.pruned,
        )

    def _answers(self, lowered: Lowered) -> list[Answers]:
        graph = lowered.captured.graph_module
        return list(answers(lowered.captured, graph, self.golden))


def _pins(places: Sequence[str]) -> tuple[Pin, ...]:
    return tuple(Pin(re.escape(place), "fp16") for place in places)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.inf if value is None else value
