# SPDX-License-Identifier: Apache-2.0
"""What a plan was chosen by, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from . import SegmentReport, TargetReport


def label(segment: SegmentReport, target: TargetReport) -> str:
    """``TensorRT``, ``PyTorch``; where AOTInductor shares a graph, ``compiled`` and ``eager``."""
    if segment.kind == "tensorrt":
        return "TensorRT"
    if target.kind == "inductor" and not all(s.compiled for s in target.segments):
        return "compiled" if segment.compiled else "eager"
    return "PyTorch"


def counted(target: TargetReport) -> str:
    """``2 TensorRT segments and 1 PyTorch segment``."""
    counts = Counter(label(segment, target) for segment in target.segments)
    order = ("TensorRT", "PyTorch", "compiled", "eager")
    found = [(counts[name], name) for name in order if counts[name]]
    parts = [f"{n} {name} segment" + "s" * (n > 1) for n, name in found]
    return " and ".join(parts) or "nothing to compute"


def chosen(target: TargetReport) -> Iterator[str]:
    """The microseconds a plan was chosen by, beside those of its alternatives."""
    for one in target.predictions:
        how = f"measured on {one.measured}" if one.measured else "predicted"
        others = f"as much on engines as can be {us_text(one.most_us)}"
        if one.none_us != one.us:
            others += f", all in PyTorch {us_text(one.none_us)}"
        yield f"  Chosen by cost: {us_text(one.us)} {how}; {others}"


def us_text(us: float) -> str:
    """``12 µs``, ``1.23 ms``."""
    if us < 1000:
        return f"{us:.3g} µs"
    return f"{us / 1000:.3g} ms" if us < 1e6 else f"{us / 1e6:.3g} s"
