# SPDX-License-Identifier: Apache-2.0
"""The steps of ``trtpack run`` on a loaded bundle: prove, call, measure, judge, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..bench import Bench, Plan, bench
from ..errors import ConfigError
from ..limits import FIGURE
from ..manifest import Limits, Method
from ..run_comparison import compare, read_previous
from ..run_report import MethodRun, RunReport, check_limits, machine_facts
from ..vitals import Watch
from . import run_text
from .run_subject import Subject


@dataclass(frozen=True)
class Settings:
    """What is asked of a run.

    Args:
        methods: which to run; all without.
        files: ``--input`` arguments.
        output: where the outputs go.
        plan: how much to measure; None measures nothing.
        smoke: whether golden samples are replayed.
        limits: instead of the bundle's own.
        figure: which wall time is held against a latency limit.
        against: a previous run's JSON.
        tolerance: the part by which figures may differ from that.
        verbose: whether every output and segment is told.
    """

    methods: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    output: Path | None = None
    plan: Plan | None = field(default_factory=Plan)
    smoke: bool = True
    limits: Limits = field(default_factory=Limits)
    figure: str = FIGURE
    against: Path | None = None
    tolerance: float = 0.05
    verbose: bool = False


def run_steps(
    subject: Subject,
    settings: Settings,
    watch: Watch,
    facts: Mapping[str, Any],
    load_seconds: float,
    say: Callable[[str], None],
) -> RunReport:
    """Does what is asked, and tells each step's result as soon as it is known.

    Args:
        subject: what was loaded.
        settings: what is asked.
        watch: begun before it was loaded.
        facts: this machine's (``device.facts``).
        load_seconds: what loading took.
        say: shows a text.

    Raises:
        ConfigError: a method that there is not, inputs for several, or a malformed ``--against``.
    """
    manifest = subject.bundle.manifest
    report = RunReport(
        bundle=subject.bundle.path,
        digest=subject.bundle.digest,
        name=manifest.name,
        variant=subject.choice.variant,
        degraded=subject.degraded,
        device=subject.device,
        machine=machine_facts(facts, subject.device),
        settings=subject.settings,
        candidates=subject.choice.candidates,
        built=subject.built,
        failed=subject.failed,
        load_seconds=load_seconds,
        start=subject.start,
        uncompiled=subject.uncompiled,
    )
    if any(engine["source"] == "built" for engine in subject.built.values()):
        watch.forget()
    names = _methods(tuple(manifest.methods), settings)
    previous = settings.against and read_previous(settings.against, manifest.name)
    calls = {name: subject.inputs(name, settings.files) for name in names}
    for name in names:
        described = manifest.methods[name].inputs
        told = [subject.told(s.name, v) for s, v in zip(described, calls[name], strict=True)]
        report.methods.append(MethodRun(name, subject.segments(name), tuple(told)))
    say(run_text.loaded(report, subject.choice, settings.verbose))
    on_gpu = not subject.device.startswith("cpu")
    for run in report.methods:
        if len(names) > 1:
            say(run_text.method(run))
        _prove(subject, run, settings, say)
        report.degraded, report.failed = subject.degraded, subject.failed
        _call(subject, run, calls[run.name], settings, say)
        if settings.plan is not None:
            with watch.during() as readings:
                run.bench = _measured(subject, run, calls[run.name], settings)
            if on_gpu or watch.of_machine:
                run.vitals = watch.vitals(readings)
            say(run_text.latency(run, report))
    report.memory = watch.memory(on_gpu, subject.gpu_peak_bytes())
    say(run_text.resources(report))
    for run in report.methods:
        stored = manifest.methods[run.name].limits
        report.limits += check_limits(run, report.memory, stored, settings.limits, settings.figure)
    if report.limits:
        say(run_text.limits(report.limits))
    if previous:
        report.against = compare(report.to_json(), previous, settings.tolerance)
        say(run_text.against(report.against, settings.verbose))
    return report


def _methods(known: tuple[str, ...], settings: Settings) -> tuple[str, ...]:
    unknown = [name for name in settings.methods if name not in known]
    if unknown:
        raise ConfigError(
            f"the bundle has no method {unknown[0]!r}, it has {', '.join(known)}",
            hint="choose one of them",
        )
    names = tuple(dict.fromkeys(settings.methods)) or known
    for option, given in (("--input", settings.files), ("--output", settings.output)):
        if given and len(names) > 1:
            raise ConfigError(
                f"{option} is for one method, this runs {', '.join(names)}",
                hint=f"add --method {names[0]}",
            )
    return names


def _prove(
    subject: Subject, run: MethodRun, settings: Settings, say: Callable[[str], None]
) -> None:
    if not settings.smoke:
        return
    start = time.perf_counter()
    run.smoke = subject.smoke(run.name)
    run.smoke_seconds = time.perf_counter() - start
    run.segments = subject.segments(run.name)
    say(run_text.smoke(run.smoke, settings.verbose))


def _call(
    subject: Subject,
    run: MethodRun,
    inputs: Sequence[Any],
    settings: Settings,
    say: Callable[[str], None],
) -> None:
    if not settings.files and settings.output is None:
        return
    subject.reset(_of_sample(run, settings))
    values = subject.call(run.name, inputs)
    described = subject.bundle.manifest.methods[run.name].outputs
    named = dict(zip((spec.name for spec in described), values, strict=True))
    run.outputs = tuple(subject.told(name, value, True) for name, value in named.items())
    run.labels = subject.labels(list(values))
    say(run_text.outputs(run))
    if settings.output is not None:
        subject.write(settings.output, named)
        say(f"\nwrote {settings.output}")


def _of_sample(run: MethodRun, settings: Settings) -> str | None:
    """The method, where its golden sample is called, with the state that belongs to it."""
    return None if settings.files else run.name


def _measured(subject: Subject, run: MethodRun, inputs: Sequence[Any], settings: Settings) -> Bench:
    """The method's figures. State is put back before every call: one that goes on and on would
    leave a cache's end behind."""
    stateful = bool(subject.bundle.manifest.state)
    reset = partial(subject.reset, _of_sample(run, settings))
    reset()
    found = bench(
        partial(subject.call, run.name, inputs),
        subject.clock,
        settings.plan or Plan(),
        prepare=reset if stateful else None,
        items_per_call=_items(subject.bundle.manifest.methods[run.name], run),
    )
    subject.reset()
    return found


def _items(method: Method, run: MethodRun) -> int:
    """The batch: the first size of an input that is the first size of an output too; else 1."""
    batches = [spec.shape[0] for spec in method.outputs if len(spec.shape) > 1]
    for spec, given in zip(method.inputs, run.inputs, strict=True):
        if len(spec.shape) > 1 and spec.shape[0] in batches:
            return given.shape[0]
    return 1
