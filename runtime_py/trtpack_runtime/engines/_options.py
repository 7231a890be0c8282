# SPDX-License-Identifier: Apache-2.0
"""How TensorRT builds an engine, as a value that jobs, records and cache keys carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EngineWeights = Literal["inside", "refittable", "stripped"]
ENGINE_WEIGHTS: tuple[EngineWeights, ...] = ("inside", "refittable", "stripped")
"""Where an engine's weights are: fixed inside, inside and replaceable, or only in the bundle."""

HardwareCompatibility = Literal["NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"]
HARDWARE_COMPATIBILITIES: tuple[HardwareCompatibility, ...] = (
    "NONE",
    "AMPERE_PLUS",
    "SAME_COMPUTE_CAPABILITY",
)
"""Which other GPUs an engine also runs on, by TensorRT's own names."""


@dataclass(frozen=True)
class BuildOptions:
    """How TensorRT builds. None leaves TensorRT's own choice.

    ``compute_capabilities`` are names such as ``"SM89"``; only TensorRT-RTX takes them.
    ``pools`` are bytes by ``MemoryPoolType`` name, ``flags`` further ``BuilderFlag`` names.
    ``tf32`` lets FLOAT products be rounded to TF32, which TensorRT does unless told not to.
    ``dla_core`` runs on that DLA core what can run there, the rest on the GPU. ``debug`` names
    tensors of the network that can be watched while the engine runs. ``locked`` fails the build
    where the timing cache lacks a tactic. ``detailed`` keeps what the engine inspector shows.
    """

    compute_capabilities: tuple[str, ...] = ()
    optimization_level: int | None = None
    avg_timing_iterations: int | None = None
    workspace_bytes: int | None = None
    pools: Mapping[str, int] = field(default_factory=dict)
    tf32: bool = False
    weights: EngineWeights = "inside"
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "NONE"
    sparse: bool = False
    dla_core: int | None = None
    debug: tuple[str, ...] = ()
    locked: bool = False
    detailed: bool = False
    flags: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for a build job and a compatibility record."""
        return {
            "compute_capabilities": list(self.compute_capabilities),
            "optimization_level": self.optimization_level,
            "avg_timing_iterations": self.avg_timing_iterations,
            "workspace_bytes": self.workspace_bytes,
            "pools": dict(self.pools),
            "tf32": self.tf32,
            "weights": self.weights,
            "version_compatible": self.version_compatible,
            "hardware_compatibility": self.hardware_compatibility,
            "sparse": self.sparse,
            "dla_core": self.dla_core,
            "debug": list(self.debug),
            "locked": self.locked,
            "detailed": self.detailed,
            "flags": list(self.flags),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> BuildOptions:
        """The inverse of ``to_json``; what is absent is as by default, what is unknown ignored."""
        known = BuildOptions().to_json()
        given = {key: value[key] for key in known if key in value}
        for key in ("compute_capabilities", "debug", "flags"):
            given[key] = tuple(given.get(key, ()))
        return BuildOptions(**given)
