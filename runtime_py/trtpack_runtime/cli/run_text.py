# SPDX-License-Identifier: Apache-2.0
"""What ``trtpack run`` found, as text, JSON and JUnit cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..junit import Case
from .resolve import rows as candidate_rows
from .text import clean, columns, mark, plural, size, wrapped

if TYPE_CHECKING:
    import torch

    from ..smoke import Comparison, SmokeReport
    from .run import Results

_SHOWN = 8
"""Outputs listed without --verbose."""

_BELOW = " " * 5


def loaded(results: Results, verbose: bool) -> str:
    """The variants with their verdicts, and what was loaded."""
    module = results.module
    choice = module.choice
    lines = [
        f"{clean(module.bundle.manifest.name)}  ({module.bundle.path})",
        columns(candidate_rows(choice.candidates, choice.variant, choice.degraded)),
    ]
    if choice.degraded:
        text = (
            f"No engine of {clean(choice.variant)} is used: PyTorch runs its portable form, "
            "slower, with the same numbers."
        )
        if "--trust" in choice.chosen.verdict.reason:
            text += " If you trust who built the bundle, run its machine code with --trust."
        lines.append(wrapped(text))
    for name, engine in module.own_engines.items():
        lines.append(wrapped(f"{clean(name)}: {engine.told}"))
    for name, reason in module.failed_engines.items():
        lines.append(wrapped(clean(f"{name} runs in PyTorch, slower than an engine: {reason}")))
    if verbose:
        lines += ["segments", columns((s.name, s.kind) for s in module.segments(results.method))]
    way = " in PyTorch" if choice.degraded else ""
    lines.append(f"loaded in {results.load_seconds:.2f} s, runs on {module.device}{way}")
    return "\n".join(lines)


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
    table = columns([header, *map(_comparison_row, shown)]).splitlines()
    lines.append(table[0])
    for comparison, line in zip(shown, table[1:], strict=True):
        lines.append(line)
        if comparison.failure is not None:
            lines.append(wrapped(clean(comparison.failure), first=_BELOW, rest=_BELOW))
    if len(shown) < len(report.comparisons):
        lines.append(f"  {len(shown)} worst of {count}; see all with --verbose")
    return "\n".join(lines)


def outputs(results: Results, verbose: bool) -> str:
    """Each output's type, shape and range; the best labels of a classifier."""
    named = results.outputs or {}
    lines = ["\noutputs", columns(_output_row(k, v) for k, v in named.items())]
    labels = results.module.bundle.manifest.metadata.get("labels")
    best = top_labels(list(named.values()), labels)
    for i, row in enumerate(best):
        lines.append(f"\nbest classes{f' of item {i}' if len(best) > 1 else ''}")
        lines.append(columns((f"{100 * p:5.1f} %", label) for label, p in row))
    return "\n".join(lines)


def latency(results: Results) -> str:
    """A table of percentiles and the throughput."""
    import torch

    found = results.latency
    assert found is not None
    given = ", ".join(
        f"{name} {'x'.join(map(str, value.shape)) or 'scalar'}"
        for name, value in (results.inputs or {}).items()
    )
    where = str(results.module.device)
    if results.module.device.type == "cpu":
        where += f", {plural(torch.get_num_threads(), 'thread')}"
    throughput = f"{found.calls_per_second:.1f} calls/s"
    if found.items_per_call > 1:
        throughput += f", {found.items_per_second:.1f} items/s"
    calls = f"{plural(found.repeats, 'call')} after {found.warmup} to warm up"
    names = ("p50", "p90", "p99", "mean", "min", "max")
    values = [f"{getattr(found, f'{name}_ms'):.2f}" for name in names]
    widths = [max(len(n), len(v)) for n, v in zip(names, values, strict=True)]
    return "\n".join(
        (
            f"\nlatency of {clean(results.method)}({clean(given)}) on {where}",
            columns(
                [
                    ["ms", *(n.rjust(w) for n, w in zip(names, widths, strict=True)), ""],
                    ["", *(v.rjust(w) for v, w in zip(values, widths, strict=True)), ""],
                ]
            ),
            f"  {throughput}  ({calls})",
        )
    )


def top_labels(values: Sequence[torch.Tensor], labels: Any) -> list[list[tuple[str, float]]]:
    """The best labels for each row, where the one output is 2-D logits; else nothing."""
    from ..samples import top_classes

    if isinstance(labels, Mapping) and all(str(i) in labels for i in range(len(labels))):
        labels = [labels[str(i)] for i in range(len(labels))]
    if not isinstance(labels, list) or not labels:
        return []
    logits = [v for v in values if v.dim() == 2 and v.is_floating_point()]
    return top_classes(logits[0], list(map(str, labels))) if len(logits) == 1 else []


def to_json(results: Results) -> dict[str, Any]:
    """Everything found, as plain values."""
    module = results.module
    smoke_report = results.smoke
    labels = module.bundle.manifest.metadata.get("labels")
    found: dict[str, Any] = {
        "bundle": {"path": str(module.bundle.path), "digest": module.bundle.digest},
        "name": module.bundle.manifest.name,
        "variant": module.variant,
        "degraded": module.degraded,
        "device": str(module.device),
        "method": results.method,
        "variants": [c.to_json() for c in module.choice.candidates],
        "segments": [{"name": s.name, "engine": s.kind} for s in module.segments(results.method)],
        "load_seconds": results.load_seconds,
        "engines": {
            name: {
                "source": "store" if engine.cached else "built",
                "build_seconds": round(engine.seconds, 3),
            }
            for name, engine in results.module.own_engines.items()
        },
        "failed_engines": dict(results.module.failed_engines),
        "inputs": _tensors_json(results.inputs or {}),
        "smoke": None,
        "outputs": None,
        "latency": None if results.latency is None else results.latency.to_json(),
    }
    if smoke_report is not None:
        found["smoke"] = {
            "passed": smoke_report.passed,
            "seconds": results.smoke_seconds,
            "outputs": [c.to_json() for c in smoke_report.comparisons],
        }
    if results.outputs is not None:
        found["outputs"] = _tensors_json(results.outputs)
        best = top_labels(list(results.outputs.values()), labels)
        if best:
            found["labels"] = [[{"label": n, "probability": p} for n, p in row] for row in best]
    return found


def junit_cases(results: Results) -> Iterator[Case]:
    """A case for every output, and one for the latency."""
    group = f"{results.module.bundle.manifest.name}.{results.module.variant}"
    if results.smoke is not None:
        count = max(len(results.smoke.comparisons), 1)
        for c in results.smoke.comparisons:
            name, seconds = f"{c.sample} {c.output}", results.smoke_seconds / count
            text = "  ".join(filter(None, _comparison_row(c)[3:]))
            yield Case(f"{group}.smoke", name, seconds, c.failure, text)
    if results.latency is not None:
        seconds = results.latency.mean_ms * results.latency.repeats / 1e3
        yield Case(f"{group}.latency", results.method, seconds, output=latency(results).strip())


def _comparison_row(comparison: Comparison) -> tuple[str, ...]:
    metrics, row = comparison.metrics, comparison
    figures = ("", "", "")
    if metrics is not None and row.is_float:
        figures = (f"{metrics.max_abs:.2e}", f"{metrics.rel_l2:.2e}", f"{metrics.cosine:.6f}")
    elif metrics is not None:
        same = metrics.elements - metrics.differing
        figures = ("equal" if not metrics.differing else f"{same}/{metrics.elements} equal", "", "")
    sign = mark(row.failure is None)
    return (sign, row.sample, row.output, row.dtype, *figures, "")


def _output_row(name: str, value: torch.Tensor) -> tuple[str, ...]:
    dims = "x".join(map(str, value.shape)) or "scalar"
    dtype = str(value.dtype).removeprefix("torch.")
    spread = ""
    if value.numel() and not value.is_complex():
        low, high = float(value.min()), float(value.max())
        spread = f"{low:.4g} .. {high:.4g}"
    return name, dtype, dims, size(value.nbytes), spread


def _tensors_json(values: Mapping[str, torch.Tensor]) -> list[dict[str, Any]]:
    return [
        {"name": k, "dtype": str(v.dtype).removeprefix("torch."), "shape": list(v.shape)}
        for k, v in values.items()
    ]
