# SPDX-License-Identifier: Apache-2.0
"""``--precision auto`` where a target is at hand: what was found is timed beside the plain types.

The search goes by rooflines, which know nothing of launches, casts and small models. So the plan it
found is built, and float16 and float32 where they keep the budget, as a build would; they are
called in turns, and another is taken where it is clearly faster.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from .accuracy.eager import as_model
from .accuracy.gate import gate, hold_types
from .building import Machine, assemble_all, bench_for
from .engine_options import kind_for
from .engines import Bench, cannot_measure_here
from .errors import AccuracyError
from .golden import GoldenSample, copied, record_golden, tensors_of
from .methods import Prepared
from .options import Options, PrecisionName
from .partition_measuring import built_plan, device_name
from .plan_timing import Call, in_turns
from .planning import plan
from .report import Progress
from .target import Target

PLAIN: tuple[PrecisionName, ...] = ("mixed", "fp32")
"""What a plan of few bits is timed beside."""
_SECONDS = 4.0
_MARGIN = 0.98
"""Another has to take less than this part of the time of what was found."""


@dataclass(frozen=True)
class Timed:
    """Milliseconds of a call, by precision, on a device; ``fastest`` is taken."""

    device: str
    ms: Mapping[str, float]
    fastest: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "device": self.device,
            "ms": {name: float(f"{ms:.4g}") for name, ms in self.ms.items()},
            "fastest": self.fastest,
        }


def plain_options(options: Options, found: Options) -> list[Options]:
    """The options of a build of each plain precision; ``options`` are those of the search, and
    ``found`` those that it chose."""
    return [
        replace(
            options,
            precision=name,
            budgets=found.budgets,
            calibrate=None,
            calibration_cache=None,
            observer=None,
        )
        for name in PLAIN
        if name != found.precision
    ]


def at_hand(options: Options, targets: Sequence[Target], machine: Machine) -> Target | None:
    """The first target that engines are built for here and now; None where there is none."""
    if options.defer or options.on is not None:
        return None
    for target in targets:
        if cannot_measure_here(kind_for(options, target), target, machine.facts) is None:
            return target
    return None


def fastest(
    ways: Sequence[Prepared], target: Target, machine: Machine, progress: Progress
) -> tuple[Prepared, Timed | None]:
    """Of the model in several precisions, what was found first, the one to build.

    Raises:
        EngineBuildError: an engine of one cannot be built.
    """
    first, *others = ways
    (golden,) = record_golden([first.source], [first.captured], first.options.samples)
    kept = [first, *(way for way in others if _keeps(way, golden))]
    if len(kept) == 1:
        return first, None
    inputs = tensors_of(copied(next(iter(first.source.samples(1)))))
    with TemporaryDirectory(prefix="trtpack-") as name:
        bench = bench_for(first.source.name, first.options, machine, Path(name))
        calls = {
            str(way.options.precision): _call(way, target, inputs, bench, progress) for way in kept
        }
        with progress.step(f"{target.name}: time {len(calls)} precisions"):
            times = in_turns(calls, _SECONDS)
    ms = {precision: 1e3 * statistics.median(values) for precision, values in times.items()}
    own = str(first.options.precision)
    best = min(ms, key=lambda precision: ms[precision] * (_MARGIN if precision == own else 1))
    chosen = next(way for way in kept if way.options.precision == best)
    return chosen, Timed(device_name(machine.facts, target), ms, best)


def _keeps(way: Prepared, golden: tuple[GoldenSample, ...]) -> bool:
    """Whether a precision keeps the budgets and the user's metric, as the build will hold it to."""
    made = gate(way.source, way.lowered, way.request, way.options, golden)
    try:
        hold_types(made)
    except AccuracyError:
        return False
    if made.held is None:
        return True
    run = as_model(way.captured, way.captured.graph_module)
    return made.held.broken(made.held.metric.of(run)) is None


def _call(
    way: Prepared, target: Target, inputs: Sequence[torch.Tensor], bench: Bench, progress: Progress
) -> Call:
    folder = bench.folder / str(way.options.precision)
    folder.mkdir()
    planned = plan(way.lowered, target, way.options)
    assembly = assemble_all([way.captured], [planned], folder)
    own = replace(bench, options=way.options)
    made: Call = built_plan(planned, assembly, inputs, own, progress)
    return made
