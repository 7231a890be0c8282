# SPDX-License-Identifier: Apache-2.0
"""What the examples say of a bundle: what it is made of, how near it is to the model, how fast."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable

import torch

import trtpack
from trtpack_runtime.module import BundleModule

NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX", "inductor": "AOTInductor"}


def told(bundle: trtpack.Bundle) -> str:
    """``orin: 12 operators in TensorRT, 1 in PyTorch, 3 segments``."""
    (target,) = bundle.report.targets
    kinds = {engine.segment: engine.kind for engine in target.engines if not engine.failed}
    counts: Counter[str] = Counter()
    for segment in target.segments:
        counts[NAMES.get(kinds.get(segment.name, ""), "PyTorch")] += segment.count
    (most, count), *others = counts.most_common()
    parts = [f"{count} operators in {most}", *(f"{number} in {kind}" for kind, number in others)]
    number = len(target.segments)
    return f"{target.name}: {', '.join(parts)}, {number} segment{'s' * (number > 1)}"


def loaded(bundle: trtpack.Bundle) -> BundleModule:
    """The bundle's only variant, here: without its GPU, PyTorch runs what engines should."""
    return bundle.load(target=bundle.report.targets[0].name)


def place(model: BundleModule) -> str:
    """Where a loaded bundle runs."""
    instead = ", by PyTorch in the place of its engines" if model.degraded else ""
    return f"on {model.device}{instead}"


def difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """How far two tensors are apart, relative to the size of the second."""
    return float((got.cpu() - wanted).double().norm() / wanted.double().norm())


def median_ms(call: Callable[[], object], calls: int = 20) -> float:
    """How long a call takes, its result waited for."""
    call()
    taken = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000
