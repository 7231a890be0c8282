# SPDX-License-Identifier: Apache-2.0
"""Holds a build to its budget: before anything is built, and what was built once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from .blame import Mended, guilty, mend
from .budgets import budgets_of, missed, told
from .eager import answers
from .figures import Answers, Figures, figures_of
from .metric import Metric, Run, drop_text, load_metric
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
        if self.metric is not None and run is not None:
            value = self.metric.of(run)
            of_metric = [b for b in self.options.budgets if b.figure == "metric"]
            pair = (self.metric.of_model, value)
            if broken := drop_text(self.metric, value, self.options.max_drop, of_metric):
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
        mended = self._mended()
        raise AccuracyError(
            f"{where} misses its budget: {'; '.join(verdict.failures)}{_advice(mended)}",
            hint=_hint(mended, self.options),
        )

    @property
    def names(self) -> list[str]:
        """The outputs that are judged."""
        return list(output_names(self.lowered.captured))

    @property
    def wanted(self) -> list[tuple[torch.Tensor, ...]]:
        """What the model itself answers for each golden sample."""
        return [sample.outputs for sample in self.golden]

    def _mended(self) -> Mended | None:
        if self.request is None or self.lowered.uncast is None:
            return None
        captured = self.lowered.captured
        worst = min(range(len(self.golden)), key=self._cosine_of)
        sample = named_inputs(captured, self.golden[worst].inputs, self.golden[worst].before)
        if self.metric is not None and not self.budgets:
            found = guilty(self.lowered, sample)[:3]
            return Mended(tuple(found), float("nan"), False) if found else None

        def badness(graph: fx.GraphModule) -> tuple[float, bool]:
            got = answers(captured, graph, self.golden, tf32=self.options.precision == "tf32")
            figures = figures_of(self.names, got, self.wanted)
            return 1 - min(f.cosine for f in figures), not list(missed(self.budgets, figures))

        return mend(self.lowered, self.request, sample, badness)

    def _cosine_of(self, index: int) -> float:
        one = self.golden[index : index + 1]
        got = answers(self.lowered.captured, self.lowered.captured.graph_module, one)
        return min(f.cosine for f in figures_of(self.names, got, [s.outputs for s in one]))


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


def _advice(mended: Mended | None) -> str:
    if mended is None:
        return ""
    places = ", ".join(f"{one.node} ({one.where})" for one in mended.guilty[:3])
    more = f" and {len(mended.guilty) - 3} more" if len(mended.guilty) > 3 else ""
    if mended.badness != mended.badness:
        return f"; most is lost at {places}"
    best = "within the budget" if mended.enough else "the best that was found"
    types = " and ".join(sorted({one.better for one in mended.guilty}))
    reached = f"with these in {types} the cosine is {1 - mended.badness:.6f}, {best}"
    return f"; most is lost at {places}{more}; {reached}"


def _hint(mended: Mended | None, options: Options) -> str:
    if mended is None and options.prune is not None:
        return "train the model on with these zeros, leave --prune away, or give another --budget"
    if mended is None and options.precision == "fp32":
        return "choose another budget"
    few = options.precision in QUANTIZED
    if mended is None:
        return f"choose {'--precision mixed' if few else 'a wider precision'}, or another budget"
    pins = " ".join(f"--pin '{one.pin}'" for one in mended.guilty)
    return f"add {pins}" + (", or let --precision auto search" * (few and not mended.enough))
