# SPDX-License-Identifier: Apache-2.0
"""The trials of ``--tune``, as a part of a build's report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import BuildReport

Table = Callable[[Sequence[tuple[str, ...]]], Iterable[str]]
Wrapped = Callable[[str, str], list[str]]


def tuning_part(report: BuildReport, table: Table, wrapped: Wrapped) -> list[str]:
    """A row for each trial, why it ended, and what is shipped."""
    told = report.tuning
    if told is None:
        return []
    head = ("trial", "of the usual time", "ms", "calls/s", "memory", "engines", "", "settings")
    rows = [head, *(_row(trial, told) for trial in told["trials"])]
    resumed = f", {told['resumed']} of them before" if told["resumed"] else ""
    title = f"Tuning for {told['optimize']} on {told['device']}: {told['ended']}{resumed}"
    lines = [*wrapped(title, ""), *table(rows)]
    return [*lines, *(line for text in _end(told) for line in wrapped(text, "  "))]


def _row(trial: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[str, ...]:
    from .text import size_text

    again = f" (built again, {trial['rebuild']})" if trial["rebuild"] else ""
    why = f": {trial['why']}" if trial["why"] else ""
    share, latency, memory = trial["of_usual"], trial["latency_ms"], trial["memory_bytes"]
    rate = trial["per_second"]
    return (
        f"{trial['number']}{'*' * (trial['number'] in told['pareto'])}",
        "-" if share is None else interval_text(share),
        "-" if latency is None else f"{latency:.3g}",
        "-" if rate is None else f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}",
        "-" if memory is None else size_text(memory),
        "-" if trial["engine_bytes"] is None else size_text(trial["engine_bytes"]),
        trial["state"],
        f"{trial['flags'] or 'as they are'}{again}{why}",
    )


def interval_text(share: Mapping[str, float]) -> str:
    """``0.51 (0.48 to 0.55)``."""
    return f"{share['middle']:.3f} ({share['low']:.3f} to {share['high']:.3f})"


def _end(told: Mapping[str, Any]) -> Iterator[str]:
    yield "* no other trial is as good in latency, throughput, memory and size, and better in one"
    final, best = told["final"], told["best"]
    if final is None:
        yield "Shipped with the settings as they are: nothing was measured to beat them."
        return
    share = f"{interval_text(final['of_usual'])} of the usual time in {final['rounds']} rounds"
    if told["shipped"] != best:
        yield f"Trial {best} did not win again, {share}; shipped with the settings as they are."
        return
    yield f"Shipped trial {best}: measured again, {share}. The same with: {told['flags']}"
