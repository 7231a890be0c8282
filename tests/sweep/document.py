# SPDX-License-Identifier: Apache-2.0
"""The sweep's table as the page docs/reference/opinfo.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tests.sweep.table import Row, total
from tests.sweep.trying import Settings

PATH = Path(__file__).resolve().parents[2] / "docs/reference/opinfo.md"
_LONGEST = 160

_HEAD = """<!-- SPDX-License-Identifier: Apache-2.0 -->
# Converters on PyTorch's own samples

PyTorch tests its operators on samples of its own (OpInfo). `{command}` tried
{samples} of each operator, in {dtypes}, with PyTorch {torch}, for the target `{target}`,
and wrote this page; nothing in it is written by hand.

A sample is **right** where the network that its call becomes answers what eager PyTorch does, as
the evaluator computes it, and the first of each operator and type is also built by TensorRT-RTX.
It is **refused** where the product says beforehand that the call stays in PyTorch, and why: the
most frequent reason is shown. It is **wrong** where numbers, shape or type differ, where anything
breaks, or where TensorRT-RTX does not build the network. What counts as the same number is said in
`tests/sweep/judging.py`. Samples that nothing can be said about (random numbers, complex or sparse
tensors, calls that answer no tensor, or that cannot be traced) are not counted.
"""

_PARTIAL = """
The run was cut short: **{} of {}** pairs of an operator and a type were tried, the others are not
in the table.
"""


def text(
    rows: Sequence[Row], settings: Settings, dtypes: Sequence[str], done: tuple[int, int]
) -> str:
    """The page: totals, operators that reach a converter, and those that do not.

    ``done`` says how many pairs of an operator and a type are done, of how many.
    """
    reached = [row for row in rows if row.is_reached]
    stays = [row for row in rows if row.tried and not row.is_reached]
    silent = [row for row in rows if not row.tried]
    samples = "every sample" if settings.most is None else f"at most {settings.most} samples a type"
    command = "scripts/opinfo --all --write"
    if settings.most is not None:
        command += f" --samples {settings.most}"
    head = _HEAD.format(
        command=command,
        samples=samples,
        dtypes=f"{', '.join(dtypes[:-1])} and {dtypes[-1]}" if dtypes[1:] else dtypes[0],
        torch=torch.__version__.partition("+")[0],
        target=settings.target,
    )
    if done[0] < done[1]:
        head += _PARTIAL.format(*done)
    lines = [
        head,
        "| | operators | tried | right | refused | wrong |",
        "|---|---:|---:|---:|---:|---:|",
        _total("reach a converter", reached),
        _total("stay in PyTorch", stays),
        _total("in all", [*reached, *stays]),
        "",
        "## Operators that reach a converter",
        "",
        "| operator | tried | right | refused | wrong | refused, mostly |",
        "|---|---:|---:|---:|---:|---|",
        *map(_line, reached),
        "",
        "## Operators that stay in PyTorch",
        "",
        "| operator | tried | why, mostly |",
        "|---|---:|---|",
        *(f"| {row.operator} | {row.tried} | {_cell(row.refused)} |" for row in stays),
        "",
        "## Operators without a sample to try",
        "",
        "| operator | why, mostly |",
        "|---|---|",
        *(f"| {row.operator} | {_cell(row.untried)} |" for row in silent),
    ]
    return "\n".join(lines) + "\n"


def _total(name: str, rows: Sequence[Row]) -> str:
    row = total(rows)
    counts = " | ".join(str(row.states[state]) for state in ("right", "refused", "wrong"))
    return f"| {name} | {len(rows)} | {row.tried} | {counts} |"


def _line(row: Row) -> str:
    right, refused, wrong = (row.states[s] for s in ("right", "refused", "wrong"))
    why = _cell(f"wrong: {row.wrong}" if wrong else row.refused)
    return f"| {row.operator} | {row.tried} | {right} | {refused} | {wrong} | {why} |"


def _cell(reason: str) -> str:
    short = reason if len(reason) <= _LONGEST else reason[: _LONGEST - 1] + "…"
    return short.replace("|", "\\|").replace("<", "&lt;")
