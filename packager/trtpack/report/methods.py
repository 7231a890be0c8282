# SPDX-License-Identifier: Apache-2.0
"""One report of a model's methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from . import BuildReport, RefusedOperator, TargetReport, ValueReport


def merged(reports: Mapping[str, BuildReport]) -> BuildReport:
    """The report of all methods by name, which is that of the only one where there is one.

    Their inputs and outputs are called ``prefill.tokens``; what only holds of one of them, such as
    the plan of its precisions, is in its own report among ``methods``.
    """
    first, *others = reports.values()
    if not others:
        return first
    targets = zip(*(report.targets for report in reports.values()), strict=True)
    notes = dict.fromkeys(note for report in reports.values() for note in report.notes)
    return replace(
        first,
        inputs=_named((name, report.inputs) for name, report in reports.items()),
        outputs=_named((name, report.outputs) for name, report in reports.items()),
        operators=_summed(report.operators for report in reports.values()),
        passes=_summed(report.passes for report in reports.values()),
        targets=tuple(_target(dict(zip(reports, found, strict=True))) for found in targets),
        call="",
        notes=tuple(notes),
        precision={},
        sparsity=None,
        methods={name: replace(report, bundle=None) for name, report in reports.items()},
    )


def _named(values: Iterable[tuple[str, Iterable[ValueReport]]]) -> tuple[ValueReport, ...]:
    return tuple(
        replace(value, name=f"{name}.{value.name}") for name, found in values for value in found
    )


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for found in counts:
        total.update(found)
    return dict(total)


def _target(methods: Mapping[str, TargetReport]) -> TargetReport:
    """What all methods have of one target."""
    return replace(
        next(iter(methods.values())),
        segments=tuple(s for one in methods.values() for s in one.segments),
        refused=_refused(r for one in methods.values() for r in one.refused),
        engines=tuple(e for one in methods.values() for e in one.engines),
        agreement=tuple(
            replace(a, output=f"{name}.{a.output}")
            for name, one in methods.items()
            for a in one.agreement
        ),
        accuracy=tuple(
            replace(a, what=f"{name}.{a.what}")
            for name, one in methods.items()
            for a in one.accuracy
        ),
        predictions=tuple(p for one in methods.values() for p in one.predictions),
    )


def _refused(refused: Iterable[RefusedOperator]) -> tuple[RefusedOperator, ...]:
    """Refusals of one operator for one reason together, the most frequent first."""
    found: dict[tuple[str, str], RefusedOperator] = {}
    for one in refused:
        key = one.op, one.reason
        before = found.get(key, replace(one, count=0, where=()))
        where = tuple(dict.fromkeys((*before.where, *one.where)))
        found[key] = replace(before, count=before.count + one.count, where=where)
    return tuple(sorted(found.values(), key=lambda r: (-r.count, r.op)))
