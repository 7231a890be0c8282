# SPDX-License-Identifier: Apache-2.0
"""What ``trtpack run`` found, as JUnit cases."""

from __future__ import annotations

from collections.abc import Iterator

from ..junit import Case
from ..run_comparison import WORSE
from ..run_report import RunReport
from .run_text import comparison_row, latency_text


def cases(report: RunReport) -> Iterator[Case]:
    """A case for every segment, which fails where PyTorch runs it in the place of an engine; for
    every output, the latency of every method, every limit, and everything that was compared with a
    previous run."""
    group = f"{report.name}.{report.variant}"
    for segment, kind in dict(s for run in report.methods for s in run.segments).items():
        reason = report.failed.get(segment)
        failure = None if reason is None else f"runs in PyTorch: {reason}"
        yield Case(f"{group}.engines", segment, failure=failure, output="" if failure else kind)
    for run in report.methods:
        if run.smoke is not None:
            count = max(len(run.smoke.comparisons), 1)
            for c in run.smoke.comparisons:
                name, seconds = f"{c.sample} {c.output}", run.smoke_seconds / count
                text = "  ".join(filter(None, comparison_row(c)[3:]))
                yield Case(f"{group}.smoke", name, seconds, c.failure, text)
        if run.bench is not None:
            seconds = run.bench.wall.mean_ms * run.bench.wall.calls / 1e3
            text = latency_text(run.bench)
            yield Case(f"{group}.latency", run.name, seconds, output=text)
    for check in report.limits:
        text = check.text()
        yield Case(
            f"{group}.limits",
            f"{check.method} {check.name}",
            failure=text if check.passed is False else None,
            skipped=text if check.passed is None else None,
            output=text if check.passed else "",
        )
    if report.against is not None:
        for change in report.against.changes:
            name = f"{change.method or 'run'} {change.kind} {change.name}"
            failure = change.text if change.verdict == WORSE else None
            output = "" if failure else f"{change.text}, {change.verdict}"
            yield Case(f"{group}.against", name, failure=failure, output=output)


def properties(report: RunReport) -> dict[str, str]:
    """What the figures depend on: the machine and the settings."""
    found = {**report.machine, **report.settings, "variant": report.variant}
    found |= {"bundle_digest": report.digest, "runs_on": report.device}
    if report.against is not None and report.against.unlike:
        found["not_like_with_like"] = "; ".join(report.against.unlike)
    return {name: str(value) for name, value in sorted(found.items())}
