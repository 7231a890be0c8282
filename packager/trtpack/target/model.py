# SPDX-License-Identifier: Apache-2.0
"""A target: one device with one software stack, as every stage sees it."""

from __future__ import annotations

from dataclasses import dataclass

from .files import EngineKind, Peak


@dataclass(frozen=True)
class Target:
    """One device with one software stack. ``None`` stands for "no source that was read says"."""

    name: str  # as it was asked for: "orin", "orin@jetpack-7.2"
    key: str  # the same for every spelling: "jetson-agx-orin-64gb@jetpack-6.2"
    device: str
    family: str
    sm: str | None  # compute capability, "8.7"; None for a CPU
    sm_also: tuple[str, ...]  # other spellings of the same capability
    arch: str  # "x86_64" or "aarch64"
    memory_bytes: int | None
    memory_unified: bool | None
    engine_kind: EngineKind
    tensorrt: (
        tuple[int, ...] | None
    )  # of the stack's kind: (10, 3, 0, 30), or TensorRT-RTX's (1, 7, 1, 116)
    stack: str
    os: str | None
    cuda: str | None
    python: str | None
    dla_cores: int | None  # that TensorRT of this stack can use
    has_fp8: bool
    has_fp4: bool
    rtx_capability: str | None  # TensorRT-RTX's name of it, "SM89"
    peak: Peak
    unsupported: str | None  # why nothing can be built for it
    notes: tuple[str, ...]
    compiles_here: bool = False  # this machine is one, and AOTInductor compiles for it here

    def tensorrt_at_least(self, release: str) -> bool:
        """Whether its TensorRT has what ``release`` ("10.8") has; TensorRT-RTX has what 11.0 has.

        False where the target has no TensorRT at all.
        """
        if self.tensorrt is None:
            return False
        have = (11, 0) if self.engine_kind == "tensorrt-rtx" else self.tensorrt
        return have >= tuple(map(int, release.split(".")))

    def describe(self) -> dict[str, object]:
        """What a bundle's manifest says about the target of a variant."""
        return {
            "name": self.name,
            "key": self.key,
            "device": self.device,
            "kind": self.engine_kind,
            "sm": self.sm,
            "sm_also": list(self.sm_also),
            "stack": self.stack,
            "tensorrt": None if self.tensorrt is None else ".".join(map(str, self.tensorrt)),
            "cuda": self.cuda,
            "os": "linux",
            "arch": self.arch,
        }
