# SPDX-License-Identifier: Apache-2.0
"""A build report as text: short, aligned, at most 100 columns."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from trtpack_runtime.durations import ago
from trtpack_runtime.segments import TENSORRT_KINDS

from . import (
    BuildReport,
    EngineReport,
    TacticReport,
    TargetReport,
    ValueReport,
)
from .partition_text import chosen, counted, label, us_text

WIDTH = 100


def render(report: BuildReport) -> str:
    """All parts of the report, a blank line between them."""
    from .precision_text import accuracy_part, precision_part
    from .sparsity_text import sparsity_part
    from .tuning_text import tuning_part

    parts = [_model(report)]
    for name, one in report.methods.items() or [("", report)]:
        parts.append(_called(name, one) if name else [])
        parts += [_lowering(one), precision_part(one, _wrapped), sparsity_part(one, _wrapped)]
        parts += [_plan(names, target) for names, target in _same_plans(one.targets)]
    parts += [
        _engines(report),
        _agreement(report),
        accuracy_part(report, _table),
        tuning_part(report, _table, _wrapped),
        _device(report),
        _notes(report),
        _end(report),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def size_text(nbytes: float) -> str:
    """``46.8 MB``."""
    for unit in ("B", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.2f} GB"


def seconds_text(seconds: float) -> str:
    """``0.4 s``, ``2 min 05 s``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02} s"


def _model(report: BuildReport) -> list[str]:
    size = size_text(report.parameter_bytes)
    head = f"{report.name}: {_count_text(report.parameters)} parameters, {size}"
    if report.methods:
        return [f"{head}; methods {', '.join(report.methods)}"]
    return [head, *_borders(report)]


def _called(name: str, report: BuildReport) -> list[str]:
    """The head of what is said of one of several methods."""
    return [f"Method {name}", *_borders(report)]


def _borders(report: BuildReport) -> list[str]:
    rows = [("input", v.name, v.dtype, v.shape_text) for v in report.inputs]
    rows += [("output", v.name, v.dtype, v.shape_text) for v in report.outputs]
    if len(rows) > 16:
        rows = [*rows[:15], (f"and {len(rows) - 15} more", "", "", "")]
    return [*_table(rows)]


def _count_text(count: int) -> str:
    if count >= 1e9:
        return f"{count / 1e9:.2f} G"
    if count >= 1e6:
        return f"{count / 1e6:.2f} M"
    return f"{count / 1e3:.1f} k" if count >= 1e4 else str(count)


def _lowering(report: BuildReport) -> list[str]:
    total = sum(report.operators.values())
    done = [f"{name} {count}" for name, count in report.passes.items() if count]
    text = f"{_plural(total, 'operator')} after lowering"
    return _wrapped(f"{text} ({', '.join(done)})" if done else text, "")


def _same_plans(
    targets: Sequence[TargetReport],
) -> list[tuple[list[str], TargetReport]]:
    """Targets with the same segments and refusals are shown once."""
    groups: list[tuple[list[str], TargetReport]] = []
    for target in targets:
        for names, shown in groups:
            if _compared(shown) == _compared(target):
                names.append(target.name)
                break
        else:
            groups.append(([target.name], target))
    return groups


def _compared(target: TargetReport) -> tuple[object, ...]:
    """What makes two plans the same to a reader: how many layers each needs does not."""
    segments = (dataclasses.replace(s, layers=None) for s in target.segments)
    return (_by(target), *segments, *target.refused)


def _by(target: TargetReport) -> str:
    """What runs a plan, unless it is TensorRT."""
    return "" if target.kind in TENSORRT_KINDS else f", by engine kind {target.kind}"


def _is_divided(target: TargetReport) -> bool:
    """Whether TensorRT's part of a plan is told: the evaluator may take its place."""
    if target.kind == "reference":
        return bool(target.supported or target.refused)
    return target.kind in TENSORRT_KINDS


def _plan(names: list[str], target: TargetReport) -> list[str]:
    lines = [f"{', '.join(names)}: {counted(target)}{_by(target)}", *chosen(target)]
    if not _is_divided(target):
        lines += _refused(target)
        return [*(cut for line in lines for cut in _wrapped(line, "")), *_segments(target)]
    lines.append(f"  Supported operators: {_kinds_text(target.supported)}")
    lines += _operators(target.supported)
    refused = sum(r.count for r in target.refused)
    rest = target.unsupported.total() - refused
    if not target.refused and rest <= 0:
        lines.append("  Unsupported operators: none")
    else:
        lines.append(f"  Unsupported operators: {refused}")
        lines += _refused(target)
        if rest > 0:
            lines += _wrapped(
                f"{_plural(rest, 'supported operator')} beside them, in PyTorch too", " " * 9
            )
    return [*(cut for line in lines for cut in _wrapped(line, "")), *_segments(target)]


def _refused(target: TargetReport) -> Iterator[str]:
    for item in target.refused:
        yield f"    {item.count:>4} {item.op}: {item.reason}"
        if item.failed:
            yield f"{' ' * 9}kept in PyTorch after TensorRT failed on it"
        yield from _wrapped(f"at {_places(item.where)}", " " * 9)


def _kinds_text(operators: Mapping[str, int]) -> str:
    if not operators:
        return "none"
    return f"{sum(operators.values())}, of {_plural(len(operators), 'kind')}"


def _operators(operators: Mapping[str, int]) -> Iterator[str]:
    """``20 aten.relu.default``, the most frequent first, in as many columns as fit."""
    ordered = sorted(operators.items(), key=lambda item: (-item[1], item[0]))
    cells = [f"{count:>4} {op}" for op, count in ordered]
    if not cells:
        return
    width = max(map(len, cells)) + 2
    columns = max(1, (WIDTH - 4) // width)
    rows = -(-len(cells) // columns)
    for row in range(rows):
        yield "    " + "".join(cell.ljust(width) for cell in cells[row::rows]).rstrip()


def _places(where: Sequence[str]) -> str:
    shown = ", ".join(where[:3])
    return f"{shown} and {len(where) - 3} more" if len(where) > 3 else shown


def _segments(target: TargetReport) -> list[str]:
    timeless = all(s.predicted_us is None for s in target.segments)
    rows = [
        (
            s.name,
            label(s, target),
            _plural(s.count, "operator"),
            *(() if timeless else (us_text(s.predicted_us or 0.0),)),
            f"{_values_text(s.inputs)} -> {_values_text(s.outputs)}",
        )
        for s in target.segments
    ]
    return list(_table(rows))


def _values_text(values: Sequence[ValueReport]) -> str:
    shown = ", ".join(v.shape_text for v in values[:3])
    return f"({shown} and {len(values) - 3} more)" if len(values) > 3 else f"({shown})"


def _engines(report: BuildReport) -> list[str]:
    rows: list[tuple[str, ...]] = []
    deferred: dict[tuple[str, str], list[str]] = {}
    uncompiled: list[tuple[str, EngineReport]] = []
    for target in report.targets:
        for engine in target.engines:
            if engine.failed:
                uncompiled.append((target.name, engine))
                continue
            if engine.deferred:
                reason = engine.deferred
                if engine.tactics is not None:
                    reason += f"; {tactics_text(engine.tactics, deferred=True)}"
                deferred.setdefault((target.name, reason), []).append(engine.segment)
                continue
            rows.append(
                (
                    target.name,
                    engine.segment,
                    engine.kind,
                    size_text(engine.nbytes),
                    ", ".join(_made_text(engine)),
                )
            )
    if not rows and not deferred and not uncompiled:
        return []
    lines = ["Engines", *_table(rows, right=(3,))]
    for (name, reason), segments in deferred.items():
        name = name.ljust(max((len(row[0]) for row in rows), default=0))
        lines += _wrapped(f"{name}  {', '.join(segments)}  deferred: {reason}", "  ")
    for name, engine in uncompiled:
        text = f"{name}  {engine.segment}  uncompiled, PyTorch runs it: {engine.failed}"
        lines += _wrapped(text, "  ")
    return lines


def _made_text(engine: EngineReport) -> Iterator[str]:
    """``built in 12 s``, ``weights inside``, ``needs 98 MB or more``, ``seeded with ...``."""
    if engine.cached:
        yield f"from the cache, built {ago(engine.age_seconds)}"
    else:
        yield f"built in {seconds_text(engine.seconds)}"
    if engine.weights is not None:
        yield f"weights {engine.weights}"
    if engine.needs_bytes:
        yield f"needs {size_text(engine.needs_bytes)} or more"
    if engine.took_bytes:
        yield f"its build took {size_text(engine.took_bytes)} of the GPU"
    if engine.tactics is not None:
        yield tactics_text(engine.tactics)


def tactics_text(tactics: TacticReport, *, deferred: bool = False) -> str:
    """``tactics as locked (37 of 37)``, ``seeded with an opaque cache of 1.2 MB kept 2 days ago``,
    ``to begin with 37 tactics of the bundle`` (or ``locked to`` them), ``tactics measured anew: the
    timing cache ...``."""
    if tactics.refused is not None:
        return f"tactics measured anew: the timing cache {tactics.refused}"
    age = "" if tactics.age_seconds is None else f" kept {ago(tactics.age_seconds)}"
    known = f"an opaque cache of {size_text(tactics.nbytes)}"
    if tactics.known is not None:
        known = _plural(tactics.known, "tactic")
    if deferred:
        text = f"{'locked to' if tactics.locked else 'to begin with'} {known} of the bundle"
    elif tactics.unchanged is not None:
        text = f"tactics as locked ({tactics.unchanged} of {tactics.known})"
    elif tactics.locked:
        text = f"locked to {known}{age}"
    else:
        text = f"seeded with {known}{age}"
    return text if tactics.on_hardware else f"{text}, not run on hardware"


def _agreement(report: BuildReport) -> list[str]:
    rows: list[tuple[str, ...]] = []
    failures: list[str] = []
    for target in report.targets:
        worst: dict[str, tuple[float, tuple[str, ...]]] = {}
        for item in target.agreement:
            figures = (_figure(item.max_abs), _figure(item.rel_l2), _cosine(item.cosine))
            row = (target.name, item.output, *figures, target.proved_on or "evaluator")
            badness = item.rel_l2 if item.rel_l2 is not None else float("inf")
            if item.output not in worst or badness > worst[item.output][0]:
                worst[item.output] = (badness, row)
            if item.failure:
                failures += _wrapped(
                    f"{target.name}: {item.output} of {item.sample}: {item.failure}", "  "
                )
        rows += [row for _, row in worst.values()]
    if not rows:
        return []
    head: tuple[str, ...] = ("target", "output", "max abs", "rel. L2", "cosine", "computed by")
    title = "Agreement with the model itself (worst golden sample)"
    if all(target.proved_on is None for target in report.targets):
        title = "Agreement with the model itself (TensorRT segments evaluated, worst golden sample)"
        head, rows = head[:-1], [row[:-1] for row in rows]
    lines = [title, *_table([head, *rows])]
    return [*lines, *failures]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


def _notes(report: BuildReport) -> list[str]:
    if not report.notes:
        return []
    return ["Notes", *(line for note in report.notes for line in _wrapped(note, "  "))]


def _device(report: BuildReport) -> list[str]:
    """The device that built engines for this host, how it was, and its smoke test."""
    on = report.on
    if on is None:
        return []
    rows = []
    if (on.before.get("readings") or {}) and on.after:
        states = f"{_state_text(on.before)} before, {_state_text(on.after)} after"
        rows.append(("temperature, clock", states))
    if mode := on.before.get("power_mode"):
        rows.append(("power mode", str(mode)))
    if on.waited_s >= 1:
        rows.append(("waited", f"{seconds_text(on.waited_s)} for another host"))
    if on.cooled_s:
        rows.append(("cooled down", seconds_text(on.cooled_s)))
    if on.lost:
        rows.append(("connection", f"lost and made again {_plural(on.lost, 'time')}"))
    rows += [(f"smoke test, {n}", f"{s.verdict}: {s.told}") for n, s in on.smoke.items()]
    rows += [("note", note) for note in on.notes]
    return [f"On {on.address}", *_table(rows)]


def _state_text(state: Mapping[str, Any]) -> str:
    """``54 °C at 1300 MHz``; what nobody tells is left out."""
    readings = state.get("readings") or {}
    degrees, clock = readings.get("temperature_c"), readings.get("sm_mhz")
    parts = [f"{degrees:.0f} °C"] if degrees is not None else []
    parts += [f"at {clock:.0f} MHz"] if clock is not None else []
    return " ".join([*parts, *(f"slowed by {why}" for why in state.get("throttled") or ())]) or "?"


def _end(report: BuildReport) -> list[str]:
    took = f" in {seconds_text(report.seconds)}" if report.steps else ""
    if report.bundle is None:
        return [f"Planned{took}; nothing was built or written"] if report.dry_run else []
    engines = sum(e.nbytes for t in report.targets for e in t.engines)
    parts = [f"weights {size_text(report.bundle.weights_bytes)}, once for all targets"]
    if engines:
        parts.append(f"engines {size_text(engines)}")
    written = f"Wrote {report.bundle.path}: {size_text(report.bundle.nbytes)}"
    lines = [*_wrapped(f"{written} ({'; '.join(parts)}){took}", ""), ""]
    return [*lines, *(f"  {line}" for line in report.usage())]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _table(rows: Sequence[tuple[str, ...]], right: Iterable[int] = ()) -> Iterator[str]:
    """Indented rows with aligned columns; a last column that is too long goes on below."""
    if not rows:
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield from _wrapped("  ".join(cells).rstrip(), "  ")


def _wrapped(text: str, indent: str) -> list[str]:
    """``text`` behind ``indent``, in lines of at most ``WIDTH``; its inner spacing is kept."""
    if len(indent) + len(text) <= WIDTH:
        return [indent + text]
    start = len(text) - len(text.lstrip())
    further = indent + " " * (start + 4)
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=further,
        replace_whitespace=False,
        drop_whitespace=True,
        break_on_hyphens=False,
    )
