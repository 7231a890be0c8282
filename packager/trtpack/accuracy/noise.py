# SPDX-License-Identifier: Apache-2.0
"""What the golden samples of a bundle are judged by, and how that was found.

A tolerance begins with what the least precise type of the model allows. Where another precision was
asked for, or the model does not answer the same twice, the noise is measured: as relative L2 error
and as cosine similarity. The tolerance is a multiple of it, since a device sums in another order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import AccuracyError
from .figures import Figures

TOLERANCES: Mapping[str, Mapping[str, Any]] = {
    "DOUBLE": {"rel_l2": 1e-4, "cosine": 0.9999},
    "FLOAT": {"rel_l2": 1e-3, "cosine": 0.9999},
    "HALF": {"rel_l2": 5e-2, "cosine": 0.999},
    "BF16": {"rel_l2": 1e-1, "cosine": 0.99},
}
"""What a device's outputs are judged by, by the least precise type the model computes in."""

PRECISION_ORDER = ("BF16", "HALF", "FLOAT", "DOUBLE")
MARGIN = 6.0
"""How much more than was measured a device may differ. Float16 engines on an H200 were up to 2.5
times as far from PyTorch as the types alone (docs/benchmarks/tensorrt.md, cosines)."""
MOST = 0.5
"""No more than this is tolerated, relative to the output: it would prove nothing."""

Tolerance = dict[str, Any]


@dataclass(frozen=True)
class Noise:
    """What was measured of each output, by what was repeated: ``precision`` is the plan's types
    against the model's own, ``repeat`` the model itself run again."""

    samples: int
    figures: Mapping[str, tuple[Figures, ...]]

    def of(self, output: str) -> dict[str, Figures]:
        """The figures of one output, by where they are from."""
        return {
            how: one for how, found in self.figures.items() for one in found if one.output == output
        }


def tolerance(output: str, dtype: str, precision: str, noise: Noise | None = None) -> Tolerance:
    """The tolerance of one output of a model that computes in ``precision``, with how it was found.
    Whole numbers are equal, unless other types than the model's gave other ones.

    Raises:
        AccuracyError: an output is nothing but noise, or no numbers at all.
    """
    measured = noise.of(output) if noise is not None else {}
    rel_l2 = max((one.rel_l2 for one in measured.values()), default=0.0)
    cosine = min((one.cosine for one in measured.values()), default=1.0)
    judged = rel_l2 <= MOST
    if dtype not in TOLERANCES and (not rel_l2 or "precision" not in measured):
        return {"equal": True}
    kind = min({dtype, precision} & TOLERANCES.keys(), key=PRECISION_ORDER.index)
    base = dict(TOLERANCES[kind])
    if not rel_l2 or not (judged or "precision" in measured):
        return {**base, "found": {"by": "type", "type": kind}}
    if not judged:
        raise AccuracyError(
            f"{output} has noise of {rel_l2:.3g} times its size, which leaves nothing to judge "
            "a device by",
            hint="choose a wider precision, pin what the report names, or leave --prune away",
        )
    return {
        "rel_l2": max(base["rel_l2"], _rounded(min(MARGIN * rel_l2, MOST))),
        "cosine": min(base["cosine"], 1 - _rounded(MARGIN**2 * (1 - cosine))),
        "found": {
            "by": "noise",
            "type": kind,
            "margin": MARGIN,
            "samples": noise.samples if noise is not None else 0,
            "rel_l2": {how: _rounded(one.rel_l2) for how, one in measured.items()},
            "cosine": {how: 1 - _rounded(1 - one.cosine) for how, one in measured.items()},
        },
    }


def _rounded(value: float) -> float:
    """Two digits, upwards: the last ones differ between machines."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step - 1e-9) * step:.1e}")


def tolerances(
    values: Iterable[tuple[str, str]], precision: str, noise: Noise | None
) -> dict[str, Tolerance]:
    """The tolerance of every output and of state, from their names and types, by name."""
    return {name: tolerance(name, dtype, precision, noise) for name, dtype in values}
