# SPDX-License-Identifier: Apache-2.0
"""The precision plan: in which type every operator of a graph computes, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import fx

from ..options import Pin, PrecisionName

TYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "fp16-fp32acc": torch.float16,
    "mixed": torch.float16,
    "bf16": torch.bfloat16,
    "mixed-bf16": torch.bfloat16,
    "int8": torch.float16,
    "fp8": torch.float16,
    "int8-weights": torch.float16,
    "int4": torch.float16,
}
"""What a precision, or a pin, computes in; of quantized ones all but the products."""
QUANTIZED: Mapping[str, str] = {
    "int8": "INT8", "fp8": "FP8", "int8-weights": "INT8", "int4": "INT4",
}  # fmt: skip
"""The precisions that quantize products, and TensorRT's name of what to."""
WEIGHTS_ONLY = ("int8-weights", "int4")
"""Those of them that leave what the weights are multiplied with."""
NAMES: Mapping[torch.dtype, str] = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
}

Sample = Mapping[str, torch.Tensor]
"""A value for every placeholder of a graph."""


@dataclass(frozen=True)
class Request:
    """What was asked for, and the inputs to measure ranges with."""

    precision: PrecisionName | None = None
    pins: tuple[Pin, ...] = ()
    samples: tuple[Sample, ...] = ()

    @property
    def is_mixed(self) -> bool:
        """Whether rules and ranges choose among two types."""
        return self.precision in ("mixed", "mixed-bf16", *QUANTIZED)

    @property
    def dtype(self) -> torch.dtype | None:
        """The type asked for; of mixed precision the small one."""
        return None if self.precision is None else TYPES[self.precision]

    @property
    def small(self) -> torch.dtype | None:
        """The small type that values are held against; None where there is none."""
        asked = [self.dtype, *(TYPES[pin.precision] for pin in self.pins)]
        return next((t for t in asked if t in (torch.float16, torch.bfloat16)), None)


@dataclass(frozen=True)
class Choice:
    """What one operator computes in, and why. With ``wide_sums`` it rounds what it reads and
    answers to ``dtype``, and sums in float32."""

    dtype: torch.dtype
    why: str
    wide_sums: bool = False

    @property
    def precision(self) -> str:
        """As the table names it."""
        return "fp16-fp32acc" if self.wide_sums else NAMES[self.dtype]


@dataclass(frozen=True)
class Row:
    """One operator of the plan; ``module`` is its module's path, ``where`` that and its line."""

    node: str
    module: str
    op: str
    precision: str
    why: str
    where: str


@dataclass(frozen=True)
class Finding:
    """A value whose numbers the small type does not hold. ``kind`` is overflow or underflow,
    ``kept`` says that it computes in float32 because of it."""

    node: str
    where: str
    kind: str
    text: str
    kept: bool


@dataclass(frozen=True)
class PrecisionPlan:
    """Every operator that computes with floating-point numbers, in order.

    ``casts`` counts those that the plan needs, ``measured`` the samples behind its ranges.
    """

    asked: str | None = None
    pins: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    findings: tuple[Finding, ...] = ()
    casts: int = 0
    measured: int = 0
    quantization: Mapping[str, Any] | None = None
    """What post-training quantization found, as plain values."""
    search: Mapping[str, Any] | None = None
    """How ``--precision auto`` came to it, as plain values."""

    @property
    def counts(self) -> dict[str, int]:
        """How many operators compute in what, the most frequent first."""
        return dict(Counter(row.precision for row in self.rows).most_common())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema": "trtpack.precision/1",
            "asked": self.asked,
            "pins": list(self.pins),
            "casts": self.casts,
            "samples": self.measured,
            **({"search": dict(self.search)} if self.search else {}),
            **({"quantization": dict(self.quantization)} if self.quantization else {}),
            "findings": [asdict(finding) for finding in self.findings],
            "nodes": [asdict(row) for row in self.rows],
        }


@dataclass
class Decisions:
    """What a plan decided of a graph's nodes."""

    choices: dict[fx.Node, Choice] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def matched(pin: Pin, names: Sequence[str]) -> bool:
    """Whether a pin means an operator of these names."""
    return any(re.fullmatch(pin.pattern, name) for name in names)
