# SPDX-License-Identifier: Apache-2.0
"""What ``trtpack run`` found, for people: one screen, a step after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..bench import Bench, Times
from ..compiling import by_reason
from ..limits import LimitCheck
from ..resolve import Choice
from ..run_comparison import BETTER, CHANGED, WORSE, Comparison
from ..run_report import MethodRun, RunReport, TensorFacts
from ..smoke_report import Comparison as Judged
from ..smoke_report import SmokeReport
from ..vitals import Vitals
from .resolve import rows as candidate_rows
from .text import clean, columns, fitted, mark, plural, size, wrapped

_SHOWN = 8
"""Outputs listed without --verbose."""

_BELOW = " " * 5
_PYTORCH = ("reference", "aten")
_ENGINES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX", "inductor": "AOTInductor"}


def loaded(report: RunReport, choice: Choice, verbose: bool) -> str:
    """The variants with their verdicts, what was loaded, and what runs where."""
    lines = [
        f"{clean(report.name)}  ({report.bundle})",
        columns(candidate_rows(report.candidates, report.variant, choice.degraded)),
    ]
    if choice.degraded:
        text = (
            f"No engine of {clean(choice.variant)} is used: PyTorch runs its portable form, "
            "slower, with the same numbers."
        )
        if "--trust" in choice.chosen.verdict.reason:
            text += " If you trust who built the bundle, run its machine code with --trust."
        lines.append(wrapped(text))
    for name, engine in report.built.items():
        lines.append(wrapped(f"{clean(name)}: {engine['told']}"))
    for name, reason in report.failed.items():
        lines.append(wrapped(clean(f"{name} runs in PyTorch, slower than an engine: {reason}")))
    for reason, segments in by_reason(report.uncompiled).items():
        lines.append(wrapped(clean(f"PyTorch runs {segments} uncompiled, slower: {reason}")))
    if verbose:
        rows = [(name, kind) for run in report.methods for name, kind in run.segments]
        lines += ["segments", columns(rows)]
        phases = report.start.get("seconds") or {}
        lines += ["start", columns((name, f"{spent:.3f} s") for name, spent in phases.items())]
        lines += _predicted(report.start.get("memory") or {})
    where = report.device
    if named := report.machine.get("device"):
        where += f" ({clean(str(named))})"
    text = f"loaded in {report.load_seconds:.2f} s, runs on {where}: {_segments(report)}"
    lines.append(wrapped(text))
    return "\n".join(lines)


def method(run: MethodRun) -> str:
    """The heading of one method among several."""
    return f"\n{clean(run.name)}()"


def _predicted(memory: Mapping[str, Any]) -> list[str]:
    """What memory the start was predicted to take, and took."""
    names = ("predicted", "measured", "free")
    rows = [(n, size(memory[f"{n}_bytes"])) for n in names if memory.get(f"{n}_bytes") is not None]
    return ["memory of the start", columns(rows)] if rows else []


def smoke(report: SmokeReport, verbose: bool) -> str:
    """A table of outputs: all of them, or the worst few."""
    if not report.comparisons:
        return "\nsmoke test: the bundle has no golden sample"
    ranked = sorted(report.comparisons, key=lambda c: -c.badness)
    failed = [c for c in ranked if c.failure is not None]
    shown = list(report.comparisons)
    if not verbose and len(shown) > _SHOWN:
        kept = {id(c) for c in [*failed, *ranked][:_SHOWN]}
        shown = [c for c in shown if id(c) in kept]
    count = plural(len(report.comparisons), "output")
    verdict = "passed" if report.passed else f"FAILED, {len(failed)} of {count} wrong"
    lines = [f"\nsmoke test: {verdict}"]
    header = ("", "sample", "output", "type", "max abs", "rel. L2", "cosine", "")
    table = fitted([header, *map(comparison_row, shown)], dropping=(3, 4, 6)).splitlines()
    lines.append(table[0])
    for comparison, line in zip(shown, table[1:], strict=True):
        lines.append(line)
        if comparison.failure is not None:
            lines.append(wrapped(clean(comparison.failure), first=_BELOW, rest=_BELOW))
    lines += [wrapped(clean(departure.told)) for departure in report.departures]
    if len(shown) < len(report.comparisons):
        lines.append(f"  {len(shown)} worst of {count}; see all with --verbose")
    return "\n".join(lines)


def outputs(run: MethodRun) -> str:
    """Each output's type, shape and range; the best labels of a classifier."""
    lines = ["\noutputs", columns(map(_output_row, run.outputs or ()))]
    for i, row in enumerate(run.labels):
        lines.append(f"\nbest classes{f' of item {i}' if len(run.labels) > 1 else ''}")
        lines.append(columns((f"{100 * p:5.1f} %", label) for label, p in row))
    return "\n".join(lines)


def latency(run: MethodRun, report: RunReport) -> str:
    """A table of percentiles, the throughput, and what the machine's sensors said meanwhile."""
    found = run.bench
    assert found is not None
    given = ", ".join(f"{t.name} {_shape(t)}" for t in run.inputs)
    where = report.device
    if threads := report.settings.get("threads"):
        where += f", {plural(threads, 'thread')}"
    lines = [
        "\n" + wrapped(f"latency of {clean(run.name)}({clean(given)}) on {where}"),
        _times(found),
        *_throughput(found),
    ]
    if run.vitals is not None:
        lines += _vitals(run.vitals)
    return "\n".join(lines)


def resources(report: RunReport) -> str:
    """The most memory there was."""
    memory = report.memory
    if memory is None:
        return ""
    parts = []
    if memory.gpu_bytes is not None:
        part = f"GPU {size(memory.gpu_bytes)}"
        if memory.torch_bytes and memory.gpu_source != "torch":
            part += f" ({size(memory.torch_bytes)} of it PyTorch's tensors)"
        parts.append(part)
    elif memory.on_gpu:
        parts.append("GPU unknown")
    if memory.host_bytes is not None:
        parts.append(f"main memory {size(memory.host_bytes)}")
    return "\n" + wrapped(f"most memory: {', '.join(parts)}") if parts else ""


def limits(checks: Sequence[LimitCheck]) -> str:
    """Each limit with its verdict, and where it comes from."""
    several = len({check.method for check in checks}) > 1
    rows = []
    for check in checks:
        name = f"{check.method}() {check.name}" if several else check.name
        rows.append((mark(check.passed), name, f"{check.text()} ({check.source})"))
    return "\n".join(("\nlimits", columns(rows)))


def against(found: Comparison, verbose: bool) -> str:
    """What got worse and better since a previous run, and whether the two are alike."""
    counted = Counter(change.verdict for change in found.changes)
    same = len(found.changes) - counted[WORSE] - counted[BETTER] - counted[CHANGED]
    parts = [f"{counted[v]} {v}" for v in (WORSE, BETTER, CHANGED) if counted[v]]
    verdict = ", ".join([*parts, f"{same} as before"])
    lines = [f"\nbeside {clean(str(found.previous))}: {verdict}"]
    rows = [(mark(None), f"not like with like: {text}") for text in found.unlike]
    rows += [(mark(False), change.text) for change in found.worse]
    rows += [(mark(True), f"{change.text}, better") for change in found.better]
    rows += [
        (mark(None), change.text)
        for change in found.changes
        if change.verdict == CHANGED or (verbose and change.verdict not in (WORSE, BETTER))
    ]
    rows += [(mark(None), text) for text in found.notes]
    return "\n".join((*lines, columns(rows))) if rows else lines[0]


def verdict(report: RunReport) -> str:
    """The last line of a run that passed: what was held against what."""
    parts = []
    if any(run.smoke is not None and run.smoke.comparisons for run in report.methods):
        parts.append("outputs are right")
    if any(check.passed for check in report.limits):
        parts.append("limits are kept")
    if report.against is not None:
        parts.append("nothing got worse")
    return f"\n{mark(True)} {', '.join(parts)}" if parts else ""


def latency_text(bench: Bench) -> str:
    """The table of percentiles and the throughput, for a report without a screen."""
    return "\n".join((_times(bench), *_throughput(bench)))


def comparison_row(comparison: Judged) -> tuple[str, ...]:
    """An output of a sample as a row: sign, sample, output, type, figures."""
    metrics, row = comparison.metrics, comparison
    figures = ("", "", "")
    if metrics is not None and row.is_float:
        figures = (f"{metrics.max_abs:.2e}", f"{metrics.rel_l2:.2e}", f"{metrics.cosine:.6f}")
    elif metrics is not None:
        same = metrics.elements - metrics.differing
        figures = ("", "equal" if not metrics.differing else f"{same}/{metrics.elements} equal", "")
    sign = mark(row.failure is None)
    return (sign, row.sample, row.output, row.dtype, *figures, "")


def _segments(report: RunReport) -> str:
    kinds = [kind for run in report.methods for _, kind in run.segments]
    counted = Counter("PyTorch" if k in _PYTORCH else _ENGINES.get(k, k) for k in kinds)
    if len(counted) == 1:
        (only,) = counted
        return f"{plural(len(kinds), 'segment')} in {only}"
    parts = ", ".join(f"{count} in {name}" for name, count in counted.most_common())
    return f"{plural(len(kinds), 'segment')}, {parts}"


def _times(found: Bench) -> str:
    names = ("p50", "p90", "p99", "mean", "min", "max")
    rows: list[tuple[str, ...]] = [("ms", *names, "")]
    places = 3 if found.wall.p50_ms < 1 else 2 if found.wall.p50_ms < 100 else 1
    kinds: list[tuple[str, Times]] = [("call", found.wall)]
    if found.gpu is not None:
        kinds.append(("GPU", found.gpu))
    for kind, times in kinds:
        values = (f"{getattr(times, f'{name}_ms'):.{places}f}" for name in names)
        rows.append((kind if found.gpu is not None else "", *values, ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    aligned = (
        [row[0], *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    )
    return fitted(aligned, dropping=(5, 4, 2))


def _throughput(found: Bench) -> Iterator[str]:
    text = f"{found.calls_per_second:.1f} calls/s"
    if found.items_per_call > 1:
        text += f", {found.items_per_second:.1f} items/s"
    if found.overlapped:
        text += " without waiting between calls"
    calls = f"{plural(found.wall.calls, 'call')} after {found.warmup.calls} to warm up"
    yield wrapped(f"{text}  ({calls})", first="  ", rest="  ")
    if found.warmup.stable is False:
        text = f"times had not settled after {found.warmup.seconds:.1f} s of warm-up"
        yield wrapped(text, first="  ", rest="  ")


def _vitals(found: Vitals) -> Iterator[str]:
    parts = []
    figures, highest = found.figures, found.limits
    if clock := figures.get("sm_mhz"):
        part = f"{clock.mean:.0f} MHz"
        if most := highest.get("sm_max_mhz"):
            part = f"{clock.mean:.0f} of {most:.0f} MHz"
        parts.append(part)
    if memory := figures.get("memory_mhz"):
        parts.append(f"memory {memory.mean:.0f} MHz")
    if degrees := figures.get("temperature_c"):
        parts.append(f"{degrees.max:.0f} C")
    if watts := figures.get("power_w"):
        most = highest.get("power_limit_w")
        parts.append(f"{watts.mean:.3g} W" + (f" of {most:.0f} W" if most else ""))
    parts += [] if found.throttled else ["not throttled"]
    yield wrapped(f"{', '.join(parts)}  ({found.source})", first="  ", rest="  ")
    if found.throttled:
        told = ", ".join(f"{name} ({part:.0%})" for name, part in found.throttled.items())
        yield wrapped(f"THROTTLED: {clean(told)}", first="  ", rest="  ")


def _output_row(tensor: TensorFacts) -> tuple[str, ...]:
    spread = ""
    if tensor.low is not None and tensor.high is not None:
        spread = f"{tensor.low:.4g} .. {tensor.high:.4g}"
    return tensor.name, tensor.dtype, _shape(tensor), size(tensor.bytes), spread


def _shape(tensor: TensorFacts) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
