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
class Options:
    """How to build. Every field has one flag of ``trtpack build``."""

    targets: tuple[str, ...]
    output: Path = Path("bundle.tar")
    inputs: tuple[InputArgument, ...] = ()
    weights: Path | None = None
    dtype: DTypeName | None = None  # None: as the model has it
    seed: int = 0
    liven: bool = False
    samples: int = 1
    min_block_size: int = 5
    torch_ops: tuple[str, ...] = ()
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
    dla_core: int | None = None
    debug_tensors: tuple[str, ...] = ()  # patterns of names
    cache: bool = True  # of engines and tactics, below the user's cache folder
    tactics: Path | None = None  # a timing cache, its lock file, or a bundle that has them
    locked: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    max_latency_ms: float | None = None  # what trtpack run holds the model against
    max_memory_mb: float | None = None
    with_runtime: bool = False  # wheels for a device without a network
    dry_run: bool = False
    report: Path | None = None
