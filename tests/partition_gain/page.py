# SPDX-License-Identifier: Apache-2.0
"""What was found, judged and written as a page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.zoo import MODELS

from .trial import FORCED, LEAST

Results = Mapping[str, Mapping[str, Any]]

MAX_ERROR = 1e-3
"""The relative L2 distance up to which two plans answer the same."""
AGAINST = ("to maximal", "to all PyTorch")


def worse(found: Mapping[str, Any], what: str) -> bool:
    """Whether the partition by cost is slower than another, for certain: all of the interval."""
    return bool(found[what][2] < 1)


def line(name: str, found: Mapping[str, Any]) -> str:
    """One model for people who wait."""
    if "failed" in found:
        return f"{name:30} failed: {found['failed']}"
    parts = [
        f"{what} {found[what][0]:.3f} x ({found[what][1]:.3f} to {found[what][2]:.3f})"
        for what in AGAINST
    ]
    return f"{name:30} {found['ms']['by cost']:9.3f} ms  {'  '.join(parts)}"


def demands(results: Results) -> list[tuple[str, str, bool]]:
    """What is demanded, what was found, whether it holds."""
    ran = {name: found for name, found in results.items() if "failed" not in found}
    rows = []
    for what in AGAINST:
        slower = [name for name, found in ran.items() if worse(found, what)]
        named = f": {', '.join(slower)}" if slower else ""
        told = f"slower on {len(slower)} of {len(ran)}{named}"
        rows.append((f"{what.replace('to', 'never slower than')}", told, not slower))
    wrong = [name for name, found in ran.items() if found["error"] > MAX_ERROR]
    rows.append((f"answers within {MAX_ERROR:g} of PyTorch's", f"{len(wrong)} beyond", not wrong))
    return rows


def medians(results: Results) -> list[str]:
    """The median gains."""
    ran = [found for found in results.values() if "failed" not in found]
    other = [found for found in ran if not found["same"]]
    lines = []
    for what in AGAINST if ran else ():
        gain = statistics.median(found[what][0] for found in ran)
        lines.append(f"median {what}: {gain:.3f} x over {len(ran)} models")
    if other:
        gain = statistics.median(found["to maximal"][0] for found in other)
        lines.append(f"median to maximal where the partitions differ: {gain:.3f} x of {len(other)}")
    return lines


@dataclass(frozen=True)
class Timed:
    """How partitions are built and timed, what PyTorch alone is, and what makes the engines."""

    how: tuple[str, ...]
    bare: str
    kind: str


_GPU = (
    "built for the GPU, float32 as it is, and called in turns in one process",
    "(`scripts/partition_gain --target native",
)
TIMED = {
    "": Timed(
        (
            "compiled for the CPU and called in turns in one process, on one thread, whose own",
            "time counts",
        ),
        "compiles nothing",
        "AOTInductor",
    ),
    "-gpu": Timed(
        (_GPU[0], f"{_GPU[1]}`)"),
        "has no engine of TensorRT; what PyTorch runs is compiled where the machine can",
        "TensorRT",
    ),
    "-gpu-inductor": Timed(
        (_GPU[0], f"{_GPU[1]} --engine inductor`)"),
        "compiles nothing",
        "AOTInductor",
    ),
}
"""By what the page's name has after ``partition``."""


def markdown(results: Results, machine: str, timed: Timed = TIMED[""]) -> str:
    """The page."""
    *how, last = timed.how
    legend = f"`E12` is an engine of {timed.kind} of 12 operators,"
    rows = [
        f"| {name} | {_cells(found)} |"
        for name, found in sorted(results.items())
        if "failed" not in found
    ]
    failed = [f"{n} ({f['failed']})" for n, f in sorted(results.items()) if "failed" in f]
    asked = [
        f"| {what} | {found} | {'yes' if ok else 'no'} |" for what, found, ok in demands(results)
    ]
    return "\n".join(
        [
            "# What choosing by cost gains",
            "",
            "Written by `scripts/partition_gain --write`. In every model of the zoo",
            f"{FORCED} operators, drawn with a seed, are forced to PyTorch. Three partitions are",
            *how,
            f"{last}: *by cost* is what `trtpack build` does; *maximal* makes an engine of",
            f"all that can be (`--min-block-size {LEAST}`); *all PyTorch* {timed.bare}. A gain",
            "is the median over rounds of how many times as long the other takes, with its 95 %",
            "interval; slower means that all of the interval is below 1. It is 1 where two",
            f"partitions are the same. {legend} `p3` are",
            "3 operators in PyTorch.",
            "",
            f"- machine: {machine}",
            f"- timed so far: {len(results) - len(failed)} of {len(MODELS)} models",
            *(f"- {line}" for line in medians(results)),
            "",
            "| demand | found | holds |",
            "| --- | --- | --- |",
            *asked,
            "",
            "| model | by cost, ms | to maximal | to all PyTorch | segments | of maximal |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            *([f"Not timed: {', '.join(failed)}.", ""] if failed else []),
        ]
    )


def _cells(found: Mapping[str, Any]) -> str:
    gains = [f"{m:.3f} ({low:.3f} to {high:.3f})" for m, low, high in (found[w] for w in AGAINST)]
    segments = [_short(found["segments"][way]) for way in ("by cost", "maximal")]
    return " | ".join([f"{found['ms']['by cost']:.3f}", *gains, *segments])


def _short(segments: str) -> str:
    parts = segments.split()
    return " ".join(parts if len(parts) <= 9 else [*parts[:8], f"and {len(parts) - 8} more"])
