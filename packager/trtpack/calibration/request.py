# SPDX-License-Identifier: Apache-2.0
"""What is asked of quantization, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..options import ObserverName, Pin

Sample = Mapping[str, torch.Tensor]
"""A value for every placeholder of a graph."""

_CPU = torch.device("cpu")

BLOCK = 128
"""Weights of INT4 that share a scale where nobody says how many, along what a product sums over."""


@dataclass(frozen=True)
class Quantization:
    """Post-training quantization to ``dtype``, as TensorRT names it. With ``stored`` it is for the
    weights of linear layers alone, as INT4 always is.

    ``samples`` answers the calibration samples, asked for once. Where the file ``cache`` is there,
    it tells what an earlier calibration found instead; else it is written. ``pins`` say what stays,
    ``block`` how many weights of a row share a scale where weights alone are rounded, ``device``
    where the model runs meanwhile. With ``partial`` a graph that has nothing to round is no error,
    since others of its model may.
    """

    dtype: str
    observer: ObserverName = "entropy"
    samples: Callable[[], Iterable[Sample]] = tuple
    cache: Path | None = None
    pins: tuple[Pin, ...] = ()
    block: int | None = None
    stored: bool = False
    device: torch.device = _CPU
    partial: bool = False

    @property
    def weights_only(self) -> bool:
        """Whether values keep their type."""
        return self.stored or self.dtype == "INT4"

    @property
    def weight_block(self) -> int | None:
        """How many weights of a row share a scale, or None: the whole row, or as its type has it
        where values are rounded too."""
        if not self.weights_only:
            return None
        return self.block or (BLOCK if self.dtype == "INT4" else None)


@dataclass
class Calibrated:
    """What a calibration found.

    ``reaches`` is the magnitude at which each value's range ends, by name; ``samples`` how many it
    was measured on, None where an earlier one told. ``block`` is how many weights share a scale,
    None where channels have one. ``products`` are those that could be, ``left`` says why something
    keeps its type.
    """

    dtype: str
    observer: str
    samples: int | None
    reaches: dict[str, float] = field(default_factory=dict)
    products: int = 0
    values: int = 0
    weights: int = 0
    block: int | None = None
    left: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; where no value was measured, only products with a rounded weight count."""
        return {
            "type": self.dtype,
            "observer": self.observer,
            "samples": self.samples,
            "products": self.products if self.reaches else self.weights,
            "values": self.values,
            "weights": self.weights,
            "block": self.block,
            "reaches": dict(self.reaches),
            "left": dict(self.left),
        }
