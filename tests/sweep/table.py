# SPDX-License-Identifier: Apache-2.0
"""What a sweep found, by operator: for people, and as the committed table."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.sweep.trying import Outcome

STATES = ("right", "refused", "wrong")


@dataclasses.dataclass(frozen=True)
class Row:
    """An operator's samples by what came of them, and the main reasons they are not right."""

    operator: str
    states: Counter[str]
    refused: str = ""
    wrong: str = ""
    untried: str = ""

    @property
    def tried(self) -> int:
        """Samples that something can be said about."""
        return sum(self.states[state] for state in STATES)

    @property
    def is_reached(self) -> bool:
        """Whether a converter had a part in any sample."""
        return bool(self.states["right"] or self.states["wrong"])


def rows(outcomes: Iterable[Outcome]) -> list[Row]:
    """A row for each operator, by name."""
    by_operator: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_operator.setdefault(outcome.operator, []).append(outcome)
    return [_row(name, found) for name, found in sorted(by_operator.items())]


def total(table: Sequence[Row]) -> Row:
    """All rows in one."""
    states: Counter[str] = Counter()
    for row in table:
        states.update(row.states)
    return Row("in all", states)


def text(table: Sequence[Row], outcomes: Sequence[Outcome], *, verbose: bool = False) -> str:
    """Columns, then the first wrong sample of each operator, or with ``verbose`` all there is."""
    shown = [*table, total(table)]
    width = max(len(row.operator) for row in shown)
    lines = [f"{'':{width}}   tried" + "".join(f"{state:>8}" for state in STATES)]
    for row in shown:
        counts = "".join(f"{row.states[s] or '-':>8}" for s in STATES)
        why = row.refused or (row.untried if not row.tried else "")
        lines.append(f"{row.operator:{width}}{row.tried or '-':>8}{counts}  {why}".rstrip())
    told: set[str] = set()
    for outcome in outcomes:
        is_first_wrong = outcome.state == "wrong" and outcome.operator not in told
        if is_first_wrong or (verbose and outcome.state != "right"):
            told.add(outcome.operator)
            lines.append(line(outcome))
    return "\n".join(lines)


def line(outcome: Outcome) -> str:
    """One sample with what came of it."""
    where = f"{outcome.operator} {outcome.dtype} #{outcome.index}{outcome.text}"
    return f"{outcome.state}: {where}: {outcome.reason}"


def _row(operator: str, outcomes: Sequence[Outcome]) -> Row:
    reasons = {
        state: Counter(o.reason for o in outcomes if o.state == state).most_common(1)
        for state in ("refused", "wrong", "untried")
    }
    return Row(
        operator,
        Counter(outcome.state for outcome in outcomes),
        **{state: most[0][0] if most else "" for state, most in reasons.items()},
    )
