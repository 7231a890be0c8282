# SPDX-License-Identifier: Apache-2.0
"""Proves a finished bundle on this host, with the samples it carries."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from trtpack_runtime.builders import BUILDERS, Site
from trtpack_runtime.errors import CompileError
from trtpack_runtime.loading import DegradedWarning, load
from trtpack_runtime.module import BundleModule
from trtpack_runtime.smoke import SmokeReport
from trtpack_runtime.tf32 import full_float32

from .accuracy.figures import Answers
from .accuracy.gate import Gate, Verdict
from .engines import BuiltEngine
from .target import Target
from .turns import Turns, replay

NO_GATES: Mapping[str, Gate] = {}


@dataclass(frozen=True)
class Proof:
    """The golden samples of one variant, and what computed its TensorRT segments: a GPU's name for
    its engines there, None for the evaluator. ``verdicts`` are how near its methods are to the
    model."""

    report: SmokeReport
    device: str | None
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


def prove(
    bundle: Path,
    target: Target,
    engines: Iterable[BuiltEngine],
    facts: Mapping[str, Any],
    failed: Path,
    gates: Mapping[str, Gate] = NO_GATES,
    turns: Sequence[Turns] = (),
) -> Proof:
    """Runs one variant on the golden samples, and its methods in turn: its engines where this host
    has the GPU they are for, else its TensorRT segments by the evaluator.

    A bundle whose engines are wrong is moved to ``failed``, to be debugged. Its methods have to
    keep the budgets of ``gates`` too.

    Raises:
        AccuracyError: it misses its budget.
        CompileError: an engine does not load, or an output is outside its tolerance; it names the
            output and the figures.
    """
    device = runs_engines(target, engines, facts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegradedWarning)  # this host is not the device
        loaded = load(
            bundle,
            target=target.name,
            device="cpu" if device is None else "cuda",
            build=False,
        )
    for segment, reason in loaded.failed_engines.items():
        bundle.replace(failed)
        raise CompileError(
            f"the engine of {segment} for {target.name} does not load: {reason}",
            hint=f"look at the bundle with: trtpack inspect {failed}",
        )
    if loaded.degraded:
        device = None  # nothing it says is of the engines
    gates = {name: gate for name, gate in gates.items() if gate.is_asked}
    answers: dict[str, list[tuple[torch.Tensor, ...]]] = {}
    report = loaded.smoke(keep=answers) if gates else loaded.smoke()
    if turns:
        report += replay(loaded, turns)
    worst = report.worst
    if report.passed or worst is None:
        verdicts = {
            name: _judged(loaded, name, target, device, gate, answers[name])
            for name, gate in gates.items()
        }
        return Proof(report, device, verdicts)
    told = f"{worst.output} of {worst.sample}: {worst.failure}"
    told += "".join(f"; {departure.told}" for departure in report.departures[:1])
    if device is None:
        raise CompileError(
            f"the program for {target.name} does not compute what the model does: {told}",
            hint="please report this with the model; --torch-op keeps an operator in PyTorch",
        )
    bundle.replace(failed)
    raise CompileError(
        f"the engines for {target.name} do not compute on {device} what the model does: {told}",
        hint=f"find the layer with: trtpack debug accuracy {failed}",
    )


def _judged(
    loaded: BundleModule,
    method: str,
    target: Target,
    device: str | None,
    gate: Gate,
    answers: Sequence[Answers],
) -> Verdict:
    """``answers`` are those to the golden samples of the bundle, which are the gate's own."""
    place, call = loaded.device, loaded.method(method)

    def run(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(torch.Tensor, lambda t: t.to(place), (args, kwargs))
        return tree_map_only(torch.Tensor, lambda t: t.cpu(), call(*args, **kwargs))

    with torch.no_grad(), full_float32():
        verdict = gate.judge(answers, run)
    loaded.reset()
    where = "by the evaluator" if device is None else f"on {device}"
    of = "" if len(loaded.methods) == 1 else f", {method},"
    gate.hold(verdict, f"{target.name}{of} {where}")
    return verdict


def runs_engines(
    target: Target, engines: Iterable[BuiltEngine], facts: Mapping[str, Any]
) -> str | None:
    """The GPU of this host that runs the engines which were built for a target, None without."""
    built = {e.kind for e in engines if e.path is not None}
    if "inductor" in built and target.engine_kind == "inductor" and target.sm is not None:
        return str(facts["gpus"][0]["name"])
    kinds = built & BUILDERS.keys()
    if not kinds or not torch.cuda.is_available():
        return None
    site = Site(facts, target.describe())
    if any(BUILDERS[kind].cannot_run(site) for kind in kinds):
        return None
    return str(facts["gpus"][0]["name"])
