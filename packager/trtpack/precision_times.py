# SPDX-License-Identifier: Apache-2.0
"""What products take in each precision by a target's roofline: it orders plans, and is no forecast.

A product takes as long as its multiplications, or as its weights take to be read, whichever is
longer. INT4 is for weights alone: it multiplies in float16.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from .lowering import Lowered
from .node_places import module_path
from .options import PrecisionName
from .precision.rules import need
from .quantization.operators import DEQUANTIZE, FAKE_QUANTIZE
from .target import Target

_HALF_AS_LONG = 0.5
"""What INT8 and FP8 take of float16's time where a device's peaks are not known."""
_BYTES: Mapping[PrecisionName, float] = {"fp32": 4, "mixed": 2, "int8": 1, "fp8": 1, "int4": 0.5}


@dataclass(frozen=True)
class Work:
    """The multiplications of a place's quantized products, the weights they read, and the rounded
    values; open sizes count as their hint."""

    multiplied: float = 0.0
    weights: float = 0.0
    reads: frozenset[str] = frozenset()

    def __add__(self, other: Work) -> Work:
        return Work(
            self.multiplied + other.multiplied,
            self.weights + other.weights,
            self.reads | other.reads,
        )


def work_of(lowered: Lowered) -> dict[str, Work]:
    """The work of every place of a quantized graph that has some: a module's path, or the name of a
    product that is in none."""
    found: dict[str, Work] = {}
    for node in lowered.captured.graph_module.graph.nodes:
        factors = [s for s in node.all_input_nodes if s.target in (FAKE_QUANTIZE, DEQUANTIZE)]
        if not factors or need(node)[0] != "product":
            continue
        if node.target is torch.ops.aten.convolution.default:
            summed = math.prod(map(int, factors[-1].meta["val"].shape[1:]))
        else:
            summed = int(factors[0].meta["val"].shape[-1])
        place = module_path(node) or node.name
        one = Work(
            float(int(node.meta["val"].numel()) * summed),
            sum(float(int(f.meta["val"].numel())) for f in factors if _is_stored(f)),
            frozenset(source.name for source in factors),
        )
        found[place] = found.get(place, Work()) + one
    return found


def share(
    work: Mapping[str, Work],
    precision: PrecisionName,
    kept: Collection[str],
    targets: Sequence[Target],
) -> float:
    """What a plan's products take as a share of their time in float16, the ``kept`` places being in
    that; of several targets the one that gains least counts."""
    if not work:
        return 1 / _HALF_AS_LONG if precision == "fp32" else 1.0
    worst = 0.0
    for target in targets or (None,):
        half = sum(time_of(one, "mixed", target) for one in work.values())
        taken = sum(
            time_of(one, "mixed" if place in kept else precision, target)
            for place, one in work.items()
        )
        worst = max(worst, taken / half if half else 1.0)
    return worst


def time_of(work: Work, precision: PrecisionName, target: Target | None) -> float:
    """The time of a place by the roofline, in seconds where the target's peaks are known."""
    peak = target.peak if target is not None else None
    half = peak.fp16_tflops if peak is not None else None
    few = (peak.int8_tops if precision == "int8" else peak.fp8_tflops) if peak is not None else None
    rate = 2.0
    if precision in ("int8", "fp8"):
        rate = 2.0 * few / half if few and half else 2.0 / _HALF_AS_LONG
    elif precision == "fp32":
        rate *= _HALF_AS_LONG
    multiplying = 4 * work.multiplied / rate
    if not half or peak is None or not peak.memory_gbps:
        return multiplying
    reading = _BYTES[precision] * work.weights / (peak.memory_gbps * 1e9)
    return max(multiplying / (half * 1e12), reading)


def _is_stored(node: fx.Node) -> bool:
    """Whether a rounded value is a weight."""
    return node.all_input_nodes[0].op == "get_attr"
