# SPDX-License-Identifier: Apache-2.0
"""What a build did: every figure that is printed at its end, and its JSON form."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .progress import Progress, Step, StepTime

__all__ = [
    "SCHEMA",
    "AccuracyReport",
    "Agreement",
    "BuildReport",
    "BundleReport",
    "DeviceReport",
    "EngineReport",
    "PredictionReport",
    "Progress",
    "RefusedOperator",
    "SegmentReport",
    "SmokeOnDevice",
    "Step",
    "StepTime",
    "TacticReport",
    "TargetReport",
    "ValueReport",
]

SCHEMA = "trtpack.build-report/1"


@dataclass(frozen=True)
class ValueReport:
    """An input or output; ``shape`` has a size, or ``min/opt/max``, per dimension."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def shape_text(self) -> str:
        """``1/4/8x3x224x224``."""
        return "x".join(map(str, self.shape)) or "scalar"


@dataclass(frozen=True)
class RefusedOperator:
    """An operator that stays in PyTorch for one reason; ``where`` are places in the model.

    ``failed`` says that the reason is an engine build that failed on it.
    """

    op: str
    count: int
    reason: str
    where: tuple[str, ...] = ()
    failed: bool = False


@dataclass(frozen=True)
class SegmentReport:
    """One step of the program. ``kind`` is ``tensorrt`` or ``torch``; of PyTorch's those that are
    not ``compiled`` run operator by operator. ``predicted_us`` is what it was chosen by."""

    name: str
    kind: str
    operators: Mapping[str, int]
    inputs: tuple[ValueReport, ...] = ()
    outputs: tuple[ValueReport, ...] = ()
    layers: int | None = None  # of its network
    compiled: bool = True
    predicted_us: float | None = None

    @property
    def count(self) -> int:
        """How many operators it has."""
        return sum(self.operators.values())


@dataclass(frozen=True)
class TacticReport:
    """The tactics an engine's build began with: ``known`` of them, None where they cannot be
    counted, in a timing cache of ``nbytes``, which was ``age_seconds`` old where that is known.

    ``locked`` says that no others might be measured, ``unchanged`` how many were proved to stand as
    they were, None where they cannot be read. Not ``on_hardware`` are those that were edited or
    imported and not built with since. ``refused`` says what is wrong with a timing cache that
    TensorRT did not take, so that it measured anew.
    """

    nbytes: int = 0
    known: int | None = None
    age_seconds: float | None = None
    locked: bool = False
    unchanged: int | None = None
    on_hardware: bool = True
    refused: str | None = None


@dataclass(frozen=True)
class EngineReport:
    """An engine that was built or came from the cache, or why there is none.

    ``age_seconds`` is how long ago a cached one was built; ``weights`` where its weights are
    (inside, refittable, stripped), None for a kind that has no choice. ``needs_bytes`` is the least
    memory it takes, ``took_bytes`` what its build took of the GPU's, where that was seen.
    ``failed`` says why there is none, so that PyTorch runs the segment uncompiled.
    """

    segment: str
    kind: str
    nbytes: int = 0
    seconds: float = 0.0
    cached: bool = False
    deferred: str | None = None
    age_seconds: float = 0.0
    weights: str | None = None
    tactics: TacticReport | None = None
    needs_bytes: int | None = None
    took_bytes: int | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Agreement:
    """One output of one golden sample: the bundle against the model itself."""

    sample: str
    output: str
    max_abs: float | None
    rel_l2: float | None
    cosine: float | None
    failure: str | None = None


@dataclass(frozen=True)
class AccuracyReport:
    """One output of a target, or the user's metric, beside its budget, which it keeps.

    An output has figures at their worst of all golden samples; a metric has what it answers of the
    model (``of_model``) and here (``value``).
    """

    what: str
    budget: str
    cosine: float | None = None
    rel_l2: float | None = None
    max_abs: float | None = None
    top1: float | None = None
    of_model: float | None = None
    value: float | None = None


@dataclass(frozen=True)
class PredictionReport:
    """The microseconds a plan was chosen by: its own, those of as much on engines as can be, and of
    nothing on engines; ``measured`` on what, None where they are predicted."""

    us: float
    most_us: float
    none_us: float
    measured: str | None = None


@dataclass(frozen=True)
class TargetReport:
    """One target's part of the bundle.

    ``proved_on`` is the GPU whose engines gave ``agreement``, None where the evaluator did.
    ``predictions`` are those of each method that was divided by cost.
    """

    name: str
    device: str
    kind: str
    stack: str
    segments: tuple[SegmentReport, ...]
    refused: tuple[RefusedOperator, ...] = ()
    engines: tuple[EngineReport, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    proved_on: str | None = None
    accuracy: tuple[AccuracyReport, ...] = ()
    predictions: tuple[PredictionReport, ...] = ()

    @property
    def supported(self) -> Counter[str]:
        """Operators that TensorRT runs, with counts."""
        return self._operators("tensorrt")

    @property
    def unsupported(self) -> Counter[str]:
        """Operators that PyTorch runs, with counts."""
        return self._operators("torch")

    def _operators(self, kind: str) -> Counter[str]:
        found: Counter[str] = Counter()
        for segment in self.segments:
            if segment.kind == kind:
                found.update(segment.operators)
        return found


@dataclass(frozen=True)
class BundleReport:
    """The written file."""

    path: str
    nbytes: int
    weights_bytes: int


@dataclass(frozen=True)
class SmokeOnDevice:
    """What became of a variant's golden samples on the device that built its engines.

    ``verdict`` is ``passed``, ``degraded`` (PyTorch ran what an engine should), ``failed`` or ``not
    run``; ``told`` says where and how fast, or why; ``report`` is that of ``trtpack run --json``.
    """

    verdict: str
    told: str
    report: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class DeviceReport:
    """The device that built engines for this host.

    ``facts`` are those of ``trtpack doctor --json``. ``before`` and ``after`` are its power mode,
    clocks and temperature. ``waited_s`` is how long another host had it, ``cooled_s`` how long it
    cooled down, ``lost`` how often the connection was made again.
    """

    address: str
    facts: Mapping[str, Any]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    waited_s: float = 0.0
    cooled_s: float = 0.0
    lost: int = 0
    smoke: Mapping[str, SmokeOnDevice] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuildReport:
    """A finished build, or with ``dry_run`` the plan of one (no engines, no bundle).

    ``call`` is Python for the example inputs, such as ``torch.randn(1, 3, 224, 224)``; ``passes``
    tells how many rewrites each lowering pass made; ``notes`` are sentences for the user. ``on`` is
    the device that built engines over SSH, ``precision`` the plan of what operators compute in;
    ``sparsity`` says, where it was asked for, which weights have 2:4 sparsity, and who can use it.
    A model of several ``methods`` has the report of each there; the rest is of all.
    """

    name: str
    parameters: int
    parameter_bytes: int
    inputs: tuple[ValueReport, ...]
    outputs: tuple[ValueReport, ...]
    operators: Mapping[str, int]
    passes: Mapping[str, int]
    targets: tuple[TargetReport, ...]
    bundle: BundleReport | None = None
    call: str = ""
    notes: tuple[str, ...] = ()
    steps: tuple[StepTime, ...] = ()
    dry_run: bool = False
    on: DeviceReport | None = None
    precision: Mapping[str, Any] = field(default_factory=dict)
    sparsity: Mapping[str, Any] | None = None
    tuning: Mapping[str, Any] | None = None
    methods: Mapping[str, BuildReport] = field(default_factory=dict)
    schema: str = field(default=SCHEMA, init=False)

    @property
    def seconds(self) -> float:
        """How long all steps took."""
        return sum(step.seconds for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--report``; figures that are not finite as strings."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        for shown, target in zip(plain["targets"], self.targets, strict=True):
            shown["supported"] = dict(target.supported.most_common())
            shown["unsupported"] = dict(target.unsupported.most_common())
        plain["methods"] = {name: _own(one.to_json()) for name, one in self.methods.items()}
        return plain

    def to_json_text(self) -> str:
        """``to_json`` as a file's text."""
        return json.dumps(self.to_json(), indent=2, sort_keys=True) + "\n"

    def to_text(self) -> str:
        """The report as it is printed, within 100 columns."""
        from .text import render

        return render(self)

    def usage(self) -> tuple[str, ...]:
        """Python that loads this bundle and calls it, a line for each method."""
        if self.bundle is None:
            return ()
        return (
            "import torch, trtpack_runtime",
            f"model = trtpack_runtime.load({self.bundle.path!r})",
            *(f"outputs = model.{name}({one.call})" for name, one in self.methods.items()),
            *(() if self.methods else (f"outputs = model({self.call})",)),
        )


def _own(plain: dict[str, Any]) -> dict[str, Any]:
    """A method's report without what is the whole model's."""
    of_all = ("schema", "methods", "bundle", "steps", "dry_run", "on")
    return {key: value for key, value in plain.items() if key not in of_all}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
