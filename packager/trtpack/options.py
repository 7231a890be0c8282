# SPDX-License-Identifier: Apache-2.0
"""Every setting of a build, as values that can be compared, hashed and written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

DTypeName = Literal["float32", "float16", "bfloat16"]
EngineKind = Literal["tensorrt", "tensorrt-rtx", "inductor", "reference"]

DTYPE_NAMES: tuple[DTypeName, ...] = ("float32", "float16", "bfloat16")
ENGINE_KINDS: tuple[EngineKind, ...] = ("tensorrt", "tensorrt-rtx", "inductor", "reference")

EngineWeights = Literal["inside", "refittable", "stripped"]
HardwareCompatible = Literal["ampere+", "same-sm"]
ENGINE_WEIGHTS: tuple[EngineWeights, ...] = ("inside", "refittable", "stripped")
HARDWARE_COMPATIBLE: tuple[HardwareCompatible, ...] = ("ampere+", "same-sm")

PrecisionName = Literal[
    "fp32", "tf32", "fp16", "bf16", "mixed", "mixed-bf16", "int8", "fp8", "int8-weights", "int4",
    "auto",
]  # fmt: skip
PinName = Literal["fp32", "fp16", "fp16-fp32acc", "bf16"]
PRECISION_NAMES: tuple[PrecisionName, ...] = (
    "fp32", "tf32", "fp16", "bf16", "mixed", "mixed-bf16", "int8", "fp8", "int8-weights", "int4",
    "auto",
)  # fmt: skip
PIN_NAMES: tuple[PinName, ...] = ("fp32", "fp16", "fp16-fp32acc", "bf16")
PruneName = Literal["2:4"]
PRUNE_NAMES: tuple[PruneName, ...] = ("2:4",)
ObserverName = Literal["minmax", "percentile", "entropy", "mse"]
CalibrationDevice = Literal["cpu", "cuda"]
CALIBRATION_DEVICES: tuple[CalibrationDevice, ...] = ("cpu", "cuda")
OBSERVER_NAMES: tuple[ObserverName, ...] = ("minmax", "percentile", "entropy", "mse")
OptimizeName = Literal["latency", "throughput", "memory"]
OPTIMIZE_NAMES: tuple[OptimizeName, ...] = ("latency", "throughput", "memory")
FigureName = Literal["cosine", "rel_l2", "max_abs", "top1", "metric"]
FIGURE_NAMES: tuple[FigureName, ...] = ("cosine", "rel_l2", "max_abs", "top1", "metric")
AT_MOST: tuple[FigureName, ...] = ("rel_l2", "max_abs")
"""The figures that are errors; the others are to be large."""


@dataclass(frozen=True)
class SizeRange:
    """The sizes one dynamic dimension takes: minimum, optimum, maximum."""

    minimum: int
    optimum: int
    maximum: int

    @property
    def values(self) -> tuple[int, int, int]:
        """(minimum, optimum, maximum)."""
        return self.minimum, self.optimum, self.maximum

    def __str__(self) -> str:
        return "/".join(map(str, self.values))


@dataclass(frozen=True)
class DynamicDim:
    """A dynamic dimension of an input; dimensions of one ``name`` always have the same size."""

    range: SizeRange
    name: str | None = None

    def __str__(self) -> str:
        return f"[{self.name}={self.range}]" if self.name else str(self.range)


@dataclass(frozen=True)
class InputSpec:
    """One input tensor: ``pixel_values=1/4/8x3x224x224:float16[0,1]``.

    ``name`` is a parameter of the model's ``forward``, None for the next position. ``dtype`` is
    torch's name, None for what the model takes. Random values lie in [``low``, ``high``).
    """

    name: str | None
    shape: tuple[int | DynamicDim, ...]
    dtype: str | None = None
    low: float | None = None
    high: float | None = None

    @property
    def optimum(self) -> tuple[int, ...]:
        """The shape with every dynamic dimension at its optimum."""
        return tuple(d if isinstance(d, int) else d.range.optimum for d in self.shape)

    @property
    def shape_text(self) -> str:
        """``1/4/8x3x224x224``."""
        sizes = (str(d) if isinstance(d, int) else str(d.range) for d in self.shape)
        return "x".join(sizes) or "scalar"

    def __str__(self) -> str:
        name = f"{self.name}=" if self.name else ""
        dtype = f":{self.dtype}" if self.dtype else ""
        values = ""
        if self.low is not None and self.high is not None:
            values = f"[{_plain(self.low)},{_plain(self.high)}]"
        return f"{name}{'x'.join(map(str, self.shape))}{dtype}{values}"


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


@dataclass(frozen=True)
class SampleFile:
    """Real inputs: a ``.safetensors`` or ``.npz`` file, or a folder of them.

    With ``name`` the file holds that one input, else its tensors are named as the inputs are.
    """

    path: Path
    name: str | None = None

    def __str__(self) -> str:
        return f"{self.name}=@{self.path}" if self.name else f"@{self.path}"


InputArgument = InputSpec | SampleFile

ProfileSpec = tuple[InputSpec, ...]
"""The shapes of one further optimisation profile: the inputs that differ, each by name."""


@dataclass(frozen=True)
class Pin:
    """A precision for the operators that a regular expression matches whole.

    It is held against their module's path, their name, and their operator with and without its
    overload. ``fp16-fp32acc`` is float16 with sums of products in float32.
    """

    pattern: str
    precision: PinName

    def __str__(self) -> str:
        return f"{self.pattern}={self.precision}"


@dataclass(frozen=True)
class Budget:
    """A bound that outputs, or the one called ``output``, have to keep against the model itself."""

    figure: FigureName
    bound: float
    output: str | None = None

    def __str__(self) -> str:
        sign = "<=" if self.figure in AT_MOST else ">="
        return (
            f"{self.output}:" * (self.output is not None) + f"{self.figure}{sign}{self.bound:.12g}"
        )


@dataclass(frozen=True)
class Drop:
    """The most that the user's metric may lose: an amount, or with ``relative`` a share of it."""

    amount: float
    relative: bool

    def __str__(self) -> str:
        return f"{self.amount * 100:g}%" if self.relative else f"{self.amount:g}"


@dataclass(frozen=True)
class Options:
    """How to build. Every field has one flag of ``trtpack build``."""

    targets: tuple[str, ...] = ()
    output: Path = Path("bundle.tar")
    inputs: tuple[InputArgument, ...] = ()
    weights: Path | None = None
    dtype: DTypeName | None = None  # None: as the model has it
    precision: PrecisionName | None = None  # None: every operator as the model has it
    pins: tuple[Pin, ...] = ()
    calibrate: str | None = None  # data.py:loader, or a folder: what int8 and fp8 need
    observer: ObserverName | None = None  # None: entropy for int8, minmax for fp8
    calibration_samples: int = 128  # at most
    calibration_cache: Path | None = None  # read where it is there, else written
    calibrate_on: CalibrationDevice = "cpu"  # where the model runs to be calibrated
    weight_block: int | None = None  # weights of a row to a scale; None: 128 in int4, else the row
    budgets: tuple[Budget, ...] = ()
    metric: str | None = None  # file.py:function or package.module:function
    max_drop: Drop | None = None  # of that metric
    seed: int = 0
    liven: bool = False
    samples: int = 1
    min_block_size: int | None = None  # None: what costs least, by prediction
    torch_ops: tuple[str, ...] = ()
    torch_modules: tuple[str, ...] = ()  # patterns of paths
    trt_ops: tuple[str, ...] = ()  # on engines, whatever that costs
    require_full: bool = False
    measure_partition: bool = False  # time ways to divide the model here, instead of predicting
    strict: bool = False
    strict_dtypes: bool = False
    converters: tuple[str, ...] = ()  # modules, or .py files, that register more of them
    engine: EngineKind | None = None  # None: the target's own
    profiles: tuple[ProfileSpec, ...] = ()  # besides that of the inputs' own ranges
    workspace_bytes: int | None = None  # None: a part of the target's memory
    optimization_level: int | None = None  # None: TensorRT's own
    avg_timing_iterations: int | None = None  # None: TensorRT's own
    engine_weights: EngineWeights = "inside"
    version_compatible: bool = False
    hardware_compatible: HardwareCompatible | None = None
    sparse: bool = False
    prune: PruneName | None = None  # weights, before anything rounds them
    dla_core: int | None = None
    debug_tensors: tuple[str, ...] = ()  # patterns of names
    cuda_graphs: bool = False  # how the bundle is called where a caller says nothing
    threads: int | None = None  # of the CPU, for AOTInductor; None: all that are there
    freezing: bool = False  # AOTInductor packs the weights for its kernels, into the engine
    max_autotune: bool = False  # AOTInductor measures kernels and takes the fastest
    tune: bool = False  # measure other settings, here or on the device, and take the best
    trials: int | None = None  # most of them; None: as many as tuning finds worth it
    budget_minutes: float | None = None  # no trial begins later
    optimize: OptimizeName = "latency"  # what tuning ships the best of
    eager: bool = False  # what PyTorch runs between engines is not compiled
    defer: bool = False  # what a device can build is left to it
    cache: bool = True  # of engines and tactics, below the user's cache folder
    tactics: Path | None = None  # a timing cache, its lock file, or a bundle that has them
    locked: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    max_latency_ms: float | None = None  # what trtpack run holds the model against
    max_memory_mb: float | None = None
    with_runtime: bool = False  # wheels for a device without a network
    on: str | None = None  # ssh://user@host: the device that builds its engines
    ssh_options: tuple[str, ...] = ()
    remote_python: str = "python3"
    lease_timeout_s: float = 3600.0
    cool_below_c: float = 65.0
    dry_run: bool = False
    report: Path | None = None
