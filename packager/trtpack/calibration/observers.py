# SPDX-License-Identifier: Apache-2.0
"""Chooses the largest magnitude that a quantized type has to reach; what is beyond saturates.

Sources: ``percentile`` and ``mse``: Wu et al., "Integer Quantization for Deep Learning Inference",
2020; ``entropy``: Migacz, "8-bit Inference with TensorRT", GTC 2017.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..options import ObserverName
from ..quantization.operators import RANGES
from .histogram import BINS, Histogram

PERCENTILE = 99.99
"""The share of the numbers, in percent, that ``percentile`` reaches."""
_LEVELS = 128
"""Magnitudes that INT8 tells apart."""
_CANDIDATES = 128
_FILLED = 64
_HARDLY = 1e-10


def reach(histogram: Histogram, observer: ObserverName, dtype: str) -> float:
    """The magnitude at which a type's range is to end; 0 where every number is 0."""
    if histogram.largest == 0:
        return 0.0
    return min(_REACHES[observer](histogram, dtype), histogram.largest)


def _minmax(histogram: Histogram, dtype: str) -> float:
    """Reaches the largest number."""
    return histogram.largest


def _percentile(histogram: Histogram, dtype: str) -> float:
    """Reaches all but the largest of ten thousand."""
    seen = histogram.counts.cumsum(0)
    first = int(torch.searchsorted(seen, seen[-1] * (PERCENTILE / 100)))
    return float(histogram.edges[min(first, BINS - 1)])


def _mse(histogram: Histogram, dtype: str) -> float:
    """Loses least in the mean of squares."""
    ends = histogram.largest * torch.arange(1, _CANDIDATES + 1).double() / _CANDIDATES
    numbers = histogram.middles.clamp(max=histogram.largest)
    lost = [
        float((histogram.counts * (numbers - rounded(numbers, float(end), dtype)).square()).sum())
        for end in ends
    ]
    return float(ends[lost.index(min(lost))])


def _entropy(histogram: Histogram, dtype: str) -> float:
    """Keeps the distribution nearest, by the divergence of Kullback and Leibler."""
    counts = _filled(histogram.counts)
    width, best, least = histogram.top / len(counts), histogram.largest, float("inf")
    for end in range(_LEVELS, len(counts) + 1, max(1, len(counts) // 512)):
        kept = counts[:end]
        wanted = kept.clone()
        wanted[-1] += counts[end:].sum()
        if float(wanted.sum()) == 0:
            continue
        group = torch.arange(end) * _LEVELS // end
        used = (kept > 0).double()
        sums = torch.zeros(_LEVELS, dtype=torch.float64).index_add_(0, group, kept)
        bins = torch.zeros(_LEVELS, dtype=torch.float64).index_add_(0, group, used)
        made = (sums / bins.clamp(min=1))[group] * used
        distance = _divergence(wanted, made)
        if distance < least:
            least, best = distance, width * end
    return best


def _filled(counts: torch.Tensor) -> torch.Tensor:
    """The counts in bins wide enough for ``_FILLED`` numbers each on average: of few numbers, what
    narrow bins differ in is chance."""
    while len(counts) > 2 * _LEVELS and float(counts.sum()) < _FILLED * len(counts):
        counts = counts.reshape(-1, 2).sum(1)
    return counts


def _divergence(wanted: torch.Tensor, made: torch.Tensor) -> float:
    """How much is lost where numbers that come as ``wanted`` are taken to come as ``made``; what
    never comes is taken to come hardly ever.

    Both are shares of all numbers, those that are cut off included. As shares of what is kept, a
    range that ends in the first bin of values far from 0 would lose nothing: all in one bin, and
    all of what is left in the same.
    """
    p, q = wanted / wanted.sum(), (made / wanted.sum()).clamp(min=_HARDLY)
    there = p > 0
    return float((p[there] * (p[there] / q[there]).log()).sum())


def rounded(numbers: torch.Tensor, end: float, dtype: str) -> torch.Tensor:
    """What numbers become in a type whose range ends at ``end``."""
    low, high = RANGES[dtype]
    scale = end / high
    scaled = (numbers / scale).clamp(low, high)
    if dtype == "FP8":
        return scaled.to(torch.float8_e4m3fn).to(numbers.dtype) * scale
    return scaled.round() * scale


_REACHES: dict[ObserverName, Callable[[Histogram, str], float]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
