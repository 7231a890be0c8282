# SPDX-License-Identifier: Apache-2.0
"""The precision plan and the accuracy of a build, as parts of its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..spelling import first_of
from . import AccuracyReport, BuildReport

Table = Callable[[Sequence[tuple[str, ...]]], Iterator[str]]
Wrapped = Callable[[str, str], list[str]]

_USUAL: dict[str, tuple[str, ...]] = {
    "tf32": ("fp32",),
    "fp32": ("fp32",),
    "fp16": ("fp16",),
    "bf16": ("bf16",),
    "mixed": ("fp16",),
    "mixed-bf16": ("bf16",),
    "int8": ("int8", "fp16"),
    "fp8": ("fp8", "fp16"),
    "int8-weights": ("int8", "fp16"),
    "int4": ("int4", "fp16"),
    "auto": ("int8", "fp16"),
}
"""What operators compute in that need no reason."""
_MOST_REASONS, _MOST_FINDINGS, _MOST_NAMES = 8, 6, 3


def precision_part(report: BuildReport, wrapped: Wrapped) -> list[str]:
    """What operators compute in, why not in the small type, and the ranges that were found."""
    plan = report.precision
    if not plan or (plan["asked"] is None and not plan["pins"]):
        return []
    counts = Counter(row["precision"] for row in plan["nodes"])
    samples = plan["samples"]
    measured = f", ranges measured on {samples} {'sample' if samples == 1 else 'samples'}"
    lines = wrapped(f"Precision {precision_line(plan)}{measured if samples else ''}", "")
    if plan.get("search"):
        lines += _search(plan["search"], wrapped)
    if plan.get("quantization"):
        lines += _quantization(plan, wrapped)
    usual = _USUAL.get(plan["asked"], tuple(name for name, _ in counts.most_common(1)))
    lines += _reasons(plan, usual, wrapped)
    return [*lines, *_findings(plan, wrapped)]


def precision_line(plan: Mapping[str, Any]) -> str:
    """``mixed: 341 in fp16, 27 in fp32; 52 casts``."""
    counts = Counter(row["precision"] for row in plan["nodes"])
    parts = [f"{count} in {name}" for name, count in counts.most_common()]
    casts = f"{plan['casts']} {'cast' if plan['casts'] == 1 else 'casts'}"
    asked = plan["asked"] or "as the model has it"
    return f"{asked}: {', '.join(parts) or 'no operator with floating-point numbers'}; {casts}"


def _search(found: Mapping[str, Any], wrapped: Wrapped) -> Iterator[str]:
    """What was tried, the cheapest first that keeps the budget, and what products lose alone."""
    trials, lost = found["trials"], found["lost"]
    text = f"Searched {len(trials)} {'plan' if len(trials) == 1 else 'plans'}: {found['precision']}"
    if found["pins"]:
        text += f" but for {len(found['pins'])} of {len(lost)} places"
    yield from wrapped(f"{text} keeps the budget", "")
    for trial in trials[:_MOST_REASONS]:
        kept = len(trial["in_fp16"])
        back = f", {kept} {'place' if kept == 1 else 'places'} in fp16" if kept else ""
        plan = trial["precision"] + back
        end = "; ".join(trial["misses"]) or "within the budget"
        time = f"products take {trial['time_of_fp16']:.0%} of their time in fp16"
        figures = "".join(f", {name} {_figure(v)}" for name, v in trial["figures"].items())
        yield from wrapped(f"{plan}: {time}{figures}, {end}", "  ")
    if "timed" in found:
        timed = found["timed"]
        each = ", ".join(f"{name} {ms:g} ms" for name, ms in timed["ms"].items())
        told = f"timed on {timed['device']}: {each}; {timed['fastest']} is taken"
        yield from wrapped(told, "  ")


def _figure(value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"1 - {1 - value:.2g}" if 0 < 1 - value < 5e-7 else f"{value:.6g}"


def _quantization(plan: Mapping[str, Any], wrapped: Wrapped) -> Iterator[str]:
    """What was quantized, how its ranges were found, and what was left as it is."""
    found = plan["quantization"]
    modules = {row["node"]: row["module"] for row in plan["nodes"]}
    counts = [
        f"{found[what]} {what.removesuffix('s') if found[what] == 1 else what}"
        for what in ("products", "values", "weights")
        if found[what]
    ]
    text = f"Quantized to {found['type']}: {', '.join(counts) or 'nothing'}"
    if found["block"] and found["weights"]:
        text += f" in blocks of {found['block']}"
    if found["values"]:
        samples = found["samples"]
        told = "1 sample" if samples == 1 else f"{samples} samples"
        told = "the calibration cache" if samples is None else told
        text += f"; ranges by {found['observer']}, from {told}"
    yield from wrapped(text, "")
    left: dict[str, list[str]] = {}
    for name, why in found["left"].items():
        left.setdefault(why, []).append(modules.get(name) or name)
    for why, names in sorted(left.items(), key=lambda one: -len(one[1]))[:_MOST_REASONS]:
        kept = "it is" if len(names) == 1 else "they are"
        yield from wrapped(
            f"{len(names):>4} left as {kept}: {why}: {first_of(names, _MOST_NAMES)}", "  "
        )


def _reasons(plan: Mapping[str, Any], usual: tuple[str, ...], wrapped: Wrapped) -> Iterator[str]:
    """Why operators do not compute in what was asked for, the most frequent reasons first."""
    others = Counter(
        (row["precision"], row["op"].rpartition(".")[0], row["why"])
        for row in plan["nodes"]
        if row["precision"] not in usual
    )
    shown = others.most_common(_MOST_REASONS)
    for (precision, op, why), count in shown:
        yield from wrapped(f"{count:>4} {op} in {precision}: {why}", "  ")
    if rest := others.total() - sum(count for _, count in shown):
        yield f"  {rest:>4} others, see --report"


def _findings(plan: Mapping[str, Any], wrapped: Wrapped) -> Iterator[str]:
    found = plan["findings"]
    for one in found[:_MOST_FINDINGS]:
        place = one["node"] if one["where"] == one["node"] else f"{one['node']} at {one['where']}"
        end = "; it computes in fp32" if one["kept"] else "; pin it to fp32"
        yield from wrapped(f"{one['kind']}: {place} {one['text']}{end}", "  ")
    if len(found) > _MOST_FINDINGS:
        yield f"  and {len(found) - _MOST_FINDINGS} more, see --report"


def accuracy_part(report: BuildReport, table: Table) -> list[str]:
    """How near each target's outputs are to the model's, where there is a budget."""
    rows = [_row(target.name, one) for target in report.targets for one in target.accuracy]
    if not rows:
        return []
    head = ("target", "what", "cosine", "rel. L2", "top 1", "model", "here", "budget")
    columns = [i for i in range(len(head)) if i < 2 or any(row[i] for row in rows)]
    shown = [tuple(row[i] for i in columns) for row in (head, *rows)]
    return ["Accuracy, within its budget", *table(shown)]


def _row(target: str, one: AccuracyReport) -> tuple[str, ...]:
    figures = (
        "" if one.cosine is None else f"{one.cosine:.6f}",
        "" if one.rel_l2 is None else f"{one.rel_l2:.2g}",
        "" if one.top1 is None else f"{one.top1:.1%}",
        "" if one.of_model is None else f"{one.of_model:.6g}",
        "" if one.value is None else f"{one.value:.6g}",
    )
    return (target, one.what, *figures, one.budget)
