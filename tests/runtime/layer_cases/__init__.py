# SPDX-License-Identifier: Apache-2.0
"""Every layer kind as one-layer networks, each with the same computation written independently."""

from __future__ import annotations

from tests.runtime.layer_cases import (
    by_data,
    edges,
    indexing,
    linear,
    pointwise,
    quantization,
    regions,
    sampling,
    spatial,
    special,
)
from tests.runtime.layer_cases.case import TOLERANCE, Case, x

__all__ = ["CASES", "TOLERANCE", "VARIANTS", "Case", "x"]

CASES: list[Case] = [
    *pointwise.activations(),
    *pointwise.unaries(),
    *pointwise.elementwises(),
    *pointwise.others(),
    *quantization.quantizations(),
    *linear.products(),
    *spatial.windows(),
    *spatial.resamplings(),
    *indexing.indexings(),
    *indexing.arrangements(),
    *special.pointwise_specials(),
    *regions.loops(),
    *regions.conditionals(),
    *edges.reductions(),
    *edges.indexings(),
    *sampling.resizings(),
    *sampling.samplings(),
    *sampling.poolings(),
    *sampling.deconvolutions(),
    *by_data.positions(),
    *by_data.suppressions(),
]
VARIANTS = [(case, dtype) for case in CASES for dtype in case.dtypes]
"""Every case with every type it is run in."""
