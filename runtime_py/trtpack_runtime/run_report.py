# SPDX-License-Identifier: Apache-2.0
"""What ``trtpack run`` found, as plain values: for text, JSON, JUnit and comparison.

``docs/reference/run-report.md`` explains every key of the JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .bench import Bench
from .errors import SmokeFailure
from .limits import LimitCheck
from .manifest import Limits
from .resolve import Candidate
from .run_comparison import SCHEMA, Comparison
from .smoke_report import SmokeReport
from .vitals import MemoryPeaks, Vitals


@dataclass(frozen=True)
class TensorFacts:
    """A tensor that went in or came out; ``dtype`` is torch's name, ``low`` and ``high`` are its
    least and largest value, None where it has none to compare."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        return {**found, "bytes": self.bytes}


@dataclass
class MethodRun:
    """What one method did; None for what was not asked for.

    ``segments`` are names with the kind that runs each. ``labels`` are the best classes of each
    item with their probability.
    """

    name: str
    segments: tuple[tuple[str, str], ...]
    inputs: tuple[TensorFacts, ...] = ()
    smoke: SmokeReport | None = None
    smoke_seconds: float = 0.0
    outputs: tuple[TensorFacts, ...] | None = None
    labels: Sequence[Sequence[tuple[str, float]]] = ()
    bench: Bench | None = None
    vitals: Vitals | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        smoke = self.smoke
        return {
            "segments": [{"name": name, "engine": kind} for name, kind in self.segments],
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "smoke": None
            if smoke is None
            else {
                "passed": smoke.passed,
                "seconds": self.smoke_seconds,
                "outputs": [c.to_json() for c in smoke.comparisons],
                "departures": [asdict(departure) for departure in smoke.departures],
            },
            "outputs": None
            if self.outputs is None
            else [tensor.to_json() for tensor in self.outputs],
            "labels": [[{"label": n, "probability": p} for n, p in row] for row in self.labels],
            "latency": None if self.bench is None else self.bench.to_json(),
            "vitals": None if self.vitals is None else self.vitals.to_json(),
        }


@dataclass
class RunReport:
    """A whole run.

    Args:
        bundle: where the bundle is.
        digest: which it is.
        name: its model's name.
        variant: what was loaded.
        degraded: whether something that should be an engine runs in PyTorch.
        device: where it runs: ``cpu``, ``cuda:0``.
        machine: ``machine_facts``.
        settings: what the figures depend on besides: ``cuda_graphs``, ``threads``.
        candidates: every variant with its verdict.
        built: segment → what is told of an engine of this machine's own: ``source`` and seconds.
        failed: segment → why it runs in PyTorch.
        uncompiled: segment → why what PyTorch runs in any case is not compiled.
        load_seconds: what opening and loading took.
        start: further facts of the start, as JSON.
    """

    bundle: Path
    digest: str
    name: str
    variant: str
    degraded: bool
    device: str
    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    candidates: Sequence[Candidate]
    built: Mapping[str, Mapping[str, Any]]
    failed: Mapping[str, str]
    load_seconds: float
    start: Mapping[str, Any] = field(default_factory=dict)
    uncompiled: Mapping[str, str] = field(default_factory=dict)
    methods: list[MethodRun] = field(default_factory=list)
    memory: MemoryPeaks | None = None
    limits: list[LimitCheck] = field(default_factory=list)
    against: Comparison | None = None

    @property
    def passed(self) -> bool:
        """Whether outputs are right, limits are kept and nothing got worse."""
        return not any(self.failures())

    def failures(self) -> Iterator[SmokeFailure]:
        """Everything that fails the run: wrong outputs first, then limits, then what got worse."""
        for method in self.methods:
            if method.smoke is not None and not method.smoke.passed:
                try:
                    method.smoke.raise_for_failure()
                except SmokeFailure as failure:
                    yield failure
        for check in self.limits:
            if check.passed is False:
                yield SmokeFailure(
                    f"{check.method}() exceeds the {check.name} limit of the {check.source}: "
                    f"{check.text()}",
                    hint=self._hint(check),
                    wants=check.wants,
                    has=check.has,
                )
        worse = [] if self.against is None else self.against.worse
        if worse:
            more = f", and {len(worse) - 1} more" if len(worse) > 1 else ""
            yield SmokeFailure(
                f"worse than the previous run: {worse[0].text}{more}",
                hint="see every change with --verbose, or accept it with a larger --tolerate",
                wants=worse[0].before,
                has=worse[0].now,
            )

    def _hint(self, check: LimitCheck) -> str:
        if check.name == "memory":
            return "take smaller inputs or a smaller model, or raise --max-memory-mb"
        vitals = [run.vitals for run in self.methods if run.name == check.method]
        slowed = ", ".join(vitals[0].throttled) if vitals and vitals[0] else ""
        if slowed:
            return f"the machine was throttled ({slowed}), cool it or give it power and try again"
        return "see where the time goes with trtpack profile"

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "schema": SCHEMA,
            "passed": self.passed,
            "bundle": {"path": str(self.bundle), "name": self.name, "digest": self.digest},
            "variant": self.variant,
            "degraded": self.degraded,
            "device": self.device,
            "machine": dict(self.machine),
            "settings": dict(self.settings),
            "variants": [candidate.to_json() for candidate in self.candidates],
            "engines": {name: dict(told) for name, told in self.built.items()},
            "failed_engines": dict(self.failed),
            "uncompiled": dict(self.uncompiled),
            "load_seconds": self.load_seconds,
            "start": dict(self.start),
            "methods": {method.name: method.to_json() for method in self.methods},
            "memory": None if self.memory is None else self.memory.to_json(),
            "limits": [check.to_json() for check in self.limits],
            "against": None if self.against is None else self.against.to_json(),
        }


def machine_facts(facts: Mapping[str, Any], device: str) -> dict[str, Any]:
    """What of a machine's facts (``device.facts``) figures depend on, for what runs on ``device``.

    Without a GPU the processor stands for the device.
    """
    kind, _, number = device.partition(":")
    gpus = [gpu for gpu in facts.get("gpus") or () if gpu.get("index") == int(number or 0)]
    gpu = gpus[0] if gpus and kind != "cpu" else None
    driver, jetson = facts.get("driver") or {}, facts.get("jetson") or {}
    processor = (facts.get("cpu") or {}).get("model")
    own = gpu is not None and gpu.get("integrated") is not False  # a Jetson may have another GPU
    found = {
        "device": (own and jetson.get("model")) or (gpu["name"] if gpu else processor),
        "sm": gpu and gpu.get("sm"),
        "memory_bytes": gpu and gpu.get("memory_bytes"),
        "os": facts.get("os_release"),
        "arch": facts.get("arch"),
        "driver": driver.get("version") if gpu else None,
        "cuda": driver.get("cuda") if gpu else None,
        "tensorrt": facts.get("tensorrt"),
        "tensorrt_rtx": facts.get("tensorrt_rtx"),
        "torch": facts.get("torch"),
        "python": facts.get("python"),
        "runtime": facts.get("runtime"),
        "jetpack": jetson.get("jetpack"),
        "l4t": jetson.get("l4t"),
        "power_mode": jetson.get("power_mode"),
    }
    return {name: value for name, value in found.items() if value is not None}


def check_limits(
    run: MethodRun,
    memory: MemoryPeaks | None,
    stored: Limits,
    given: Limits,
    figure: str,
) -> list[LimitCheck]:
    """Holds a method against its bundle's limits, those given for the run in their place.

    Args:
        run: the method's figures; without a bench a latency limit is not judged.
        memory: the run's peaks.
        stored: the bundle's limits.
        given: those of the command line.
        figure: which of the wall times counts, of ``limits.FIGURES``.
    """
    checks = []
    latency = given.max_latency_ms or stored.max_latency_ms
    if latency is not None:
        source = "command line" if given.max_latency_ms else "bundle"
        has = None if run.bench is None else float(getattr(run.bench.wall, f"{figure}_ms"))
        checks.append(LimitCheck(run.name, "latency", figure, "ms", latency, has, source))
    most = given.max_memory_mb or stored.max_memory_mb
    if most is not None:
        source = "command line" if given.max_memory_mb else "bundle"
        taken, name = (None, "memory") if memory is None else memory.judged
        megabytes = None if taken is None else taken / 1e6
        checks.append(LimitCheck(run.name, "memory", name, "MB", most, megabytes, source))
    return checks
