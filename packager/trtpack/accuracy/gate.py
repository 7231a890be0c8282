# SPDX-License-Identifier: Apache-2.0
"""Holds a build to its budget: before anything is built, and what was built once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import fx

from ..errors import AccuracyError
from ..golden import GoldenSample, run_again
from ..lowering import Lowered
from ..options import Budget, Options
from ..output_names import output_names
from ..precision.plan import QUANTIZED, Request
from ..precision.running import named_inputs
from ..sources import Source
from .blame import Judged, Mended, guilty, in_float32, mend
from .budgets import budgets_of, excess, furthest, missed, reached, told
from .eager import answers
from .figures import Answers, Figures, figures_of
from .metric import Held, Metric, Run, load_metric
from .noise import Noise


@dataclass(frozen=True)
class Verdict:
    """What was measured of a build. ``failures`` are clauses, none where it keeps its budget.

    ``metric`` is what the user's own metric answers, of the model and of the build.
    """

    figures: tuple[Figures, ...]
    metric: tuple[float, float] | None = None
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gate:
    """A model's own answers, and how far a build may be from them."""

    lowered: Lowered
    request: Request | None
    options: Options
    golden: tuple[GoldenSample, ...]
    budgets: tuple[Budget, ...]
    metric: Metric | None
    in_types: tuple[Figures, ...]
    """The figures of the lowered graph in PyTorch, in the plan's types and pruned; those of state
    last. None where nothing is asked of either."""

    @property
    def is_asked(self) -> bool:
        """Whether there is anything to hold a build to."""
        return bool(self.budgets) or self.metric is not None or self.request is not None

    def judge(self, got: Sequence[Answers], run: Run | None = None) -> Verdict:
        """Judges what a build answers for the golden samples, and by the user's metric."""
        figures = figures_of(self.names, got, self.wanted)
        failures = [told(*miss) for miss in missed(self.budgets, figures)]
        pair: tuple[float, float] | None = None
        if self.held is not None and run is not None:
            value = self.held.metric.of(run)
            pair = (self.held.metric.of_model, value)
            if broken := self.held.broken(value):
                failures.append(broken)
        return Verdict(figures, pair, tuple(failures))

    def noise(self, source: Source, tried: tuple[torch.Tensor, ...]) -> Noise:
        """What golden samples have to tolerate: the model run again, the plan's types and zeros.

        ``tried`` is what it answered before the golden samples, of ``try_out``.
        """
        again = run_again(source, self.golden[0].before, tried)
        found = {"repeat": figures_of(self.names, [again], self.wanted[:1])}
        if self.in_types:
            found["precision"] = self.in_types
        return Noise(len(self.golden), found)

    def hold(self, verdict: Verdict, where: str) -> None:
        """Refuses a build that misses its budget.

        Raises:
            AccuracyError: with the figures, and the operators to pin.
        """
        if not verdict.failures:
            return
        text = f"{where} misses its budget: {'; '.join(verdict.failures)}"
        if verdict.metric is not None and self.held is not None and self.held.is_beyond:
            raise AccuracyError(text, hint="choose another budget, one that the model itself keeps")
        mended, wide = self._mended(), None
        if mended is None or (mended.left is not None and not mended.is_enough):
            wide = self._in_float32()
        raise AccuracyError(
            f"{text}{_advice(mended, wide)}", hint=_hint(mended, wide, self.options)
        )

    @property
    def held(self) -> Held | None:
        """What the user's metric is held to."""
        if self.metric is None:
            return None
        bounds = tuple(b for b in self.options.budgets if b.figure == "metric")
        return Held(self.metric, self.options.max_drop, bounds)

    @property
    def names(self) -> list[str]:
        """The outputs that are judged."""
        return list(output_names(self.lowered.captured))

    @property
    def wanted(self) -> list[tuple[torch.Tensor, ...]]:
        """What the model itself answers for each golden sample."""
        return [sample.outputs for sample in self.golden]

    def _mended(self) -> Mended | None:
        """What to pin; where it is not the types' figures that miss, those that lose most."""
        if self.request is None or self.lowered.uncast is None:
            return None
        captured = self.lowered.captured
        worst = max(range(len(self.golden)), key=self._missed_by)
        sample = named_inputs(captured, self.golden[worst].inputs, self.golden[worst].before)
        if self._types_miss() is None:
            found = guilty(self.lowered, sample)[:3]
            return Mended(tuple(found)) if found else None
        tf32 = self.options.precision == "tf32"
        return mend(self.lowered, self.request, sample, partial(self._judged, tf32=tf32))

    def _in_float32(self) -> Judged | None:
        """What float32 misses; None where it is what was asked for, where zeros or another device
        may be what misses, or where it cannot be tried."""
        if self.request is None or self.lowered.uncast is None or self._types_miss() is None:
            return None
        if self.options.precision == "fp32" or self.options.prune is not None:
            return None
        graph = in_float32(self.lowered, self.request)
        return None if graph is None else self._judged(graph)

    def _types_miss(self) -> tuple[Figures, Budget] | None:
        return furthest(self.budgets, self.in_types[: len(self.names)])

    def _judged(self, graph: fx.GraphModule, tf32: bool = False) -> Judged:
        """A graph by what it misses most, else by what the plan's types do."""
        got = answers(self.lowered.captured, graph, self.golden, tf32=tf32)
        figures = figures_of(self.names, got, self.wanted)
        miss = furthest(self.budgets, figures)
        if miss is None:
            before = self._types_miss()
            assert before is not None
            miss = next((f, before[1]) for f in figures if f.output == before[0].output)
        return Judged(excess(*miss), reached(*miss))

    def _missed_by(self, index: int) -> tuple[float, float]:
        """How far one sample alone misses the budget, and how unlike the model's answer it is."""
        one = self.golden[index : index + 1]
        got = answers(self.lowered.captured, self.lowered.captured.graph_module, one)
        figures = figures_of(self.names, got, [s.outputs for s in one])
        miss = furthest(self.budgets, figures)
        return excess(*miss) if miss else 0.0, -min(f.cosine for f in figures)


def gate(
    source: Source,
    lowered: Lowered,
    request: Request | None,
    options: Options,
    golden: tuple[GoldenSample, ...],
) -> Gate:
    """The gate of a build, with what the plan's types alone cost in PyTorch.

    Raises:
        ConfigError: a budget of no output, or a metric that cannot be used.
    """
    names = list(output_names(lowered.captured))
    budgets = budgets_of(options, names)
    metric = load_metric(options.metric, source.module) if options.metric is not None else None
    in_types: tuple[Figures, ...] = ()
    if request is not None or options.prune is not None:
        graph = lowered.captured.graph_module
        got = answers(lowered.captured, graph, golden, tf32=options.precision == "tf32")
        slots = [state.slot for state in lowered.captured.state]
        wanted = [(*s.outputs, *(s.states[slot] for slot in slots)) for s in golden]
        in_types = figures_of([*names, *slots], got, wanted)
    return Gate(lowered, request, options, golden, budgets, metric, in_types)


def hold_types(made: Gate) -> None:
    """Refuses a plan whose types alone break the budget, before engines are built.

    Raises:
        AccuracyError: with the figures, and the operators to pin.
    """
    figures = made.in_types[: len(made.names)]
    failures = tuple(told(*miss) for miss in missed(made.budgets, figures))
    asked = made.options.precision or ("as it is pinned" if made.options.pins else None)
    parts = [f"precision {asked}"] if asked else []
    parts += [f"pruning {made.options.prune}"] if made.options.prune else []
    made.hold(Verdict(figures, None, failures), " with ".join(parts))


def _advice(mended: Mended | None, wide: Judged | None) -> str:
    text = ""
    if mended is not None:
        places = ", ".join(f"{one.node} ({one.where})" for one in mended.guilty[:3])
        text = f"; most is lost at {places}"
    if mended is not None and mended.left is not None:
        more = len(mended.guilty) - 3
        best = "within the budget" if mended.is_enough else "the best that was found"
        types = " and ".join(sorted({one.better for one in mended.guilty}))
        text += f" and {more} more" if more > 0 else ""
        text += f"; with these in {types} {mended.left.told}, {best}"
    if wide is not None and wide.excess:
        text += f"; not even float32 keeps it, where {wide.told}"
    return text


def _hint(mended: Mended | None, wide: Judged | None, options: Options) -> str:
    few = options.precision in QUANTIZED
    if mended is not None and (mended.is_enough or mended.left is None):
        pins = "add " + " ".join(f"--pin '{one.pin}'" for one in mended.guilty)
        if mended.is_enough:
            return pins
        return f"{pins}, or {'let --precision auto search' if few else 'choose a wider precision'}"
    if options.prune is not None:
        return "train the model on with these zeros, leave --prune away, or give another --budget"
    if options.precision == "fp32" or (wide is not None and wide.excess):
        return "choose another budget"
    wider = "a wider precision" if wide is None else "--precision fp32"
    if wide is not None and options.pins:
        wider += " without --pin"
    return f"choose {wider}, or {'let --precision auto search' if few else 'another budget'}"
