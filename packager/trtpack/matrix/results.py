# SPDX-License-Identifier: Apache-2.0
"""What became of the cells: judged by the reports that their jobs left in a folder.

``FOLDER/CELL/build.json`` is what ``trtpack build --report`` writes, ``FOLDER/CELL/run.json`` what
``trtpack run --json`` prints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .cells import Cell, Plan
from .formats import SCHEMA


@dataclass(frozen=True)
class Verdict:
    """The result of each cell that was to run, by name, and why those failed that may not."""

    results: Mapping[str, str]
    failures: Mapping[str, str]
    surprises: Mapping[str, str]  # cells that were expected to fail, and pass

    @property
    def passed(self) -> bool:
        """Whether nothing failed that may not."""
        return not self.failures


def judge(plan: Plan, folder: Path) -> Verdict:
    """Holds the reports in ``folder`` against what was expected of each cell."""
    return _judged(plan, lambda cell: _failure(cell, folder / cell.name), tested=True)


def judge_builds(plan: Plan, failures: Mapping[str, str]) -> Verdict:
    """Holds builds that failed against what was expected; one with a runner may yet fail there."""
    return _judged(plan, lambda cell: failures.get(cell.name), tested=False)


def _judged(plan: Plan, failure: Callable[[Cell], str | None], *, tested: bool) -> Verdict:
    results: dict[str, str] = {}
    failures: dict[str, str] = {}
    surprises: dict[str, str] = {}
    for cell in plan.to_run:
        why = failure(cell)
        if cell.expected == "success":
            results[cell.name] = "failed" if why else "passed"
            if why:
                failures[cell.name] = why
        elif why:
            results[cell.name] = "expected failure"
        elif cell.runner and not tested:
            results[cell.name] = "passed"
        else:
            results[cell.name] = "passes unexpectedly"
            surprises[cell.name] = f"passes, though expected to fail: {cell.expected_reason}"
            if cell.strict:
                failures[cell.name] = "passes: take its [[expect-failure]] away"
    return Verdict(results, failures, surprises)


def _failure(cell: Cell, folder: Path) -> str | None:
    """Why a cell failed; None where it did not."""
    if not (folder / "build.json").is_file():
        return "was not built"
    if not cell.runner:
        return None
    path = folder / "run.json"
    try:
        run = json.loads(path.read_bytes())
    except OSError:
        return "was built, but its test left no report"
    except ValueError:
        return f"{path} is not JSON: its test was ended"
    if run.get("passed") is True and not run.get("degraded"):
        return None
    against = run.get("against") or {}
    changes = [c["text"] for c in against.get("changes", ()) if c.get("verdict") == "worse"]
    if changes:
        return "worse than the last release: " + "; ".join(changes)
    if run.get("passed") is True:
        return "PyTorch runs what an engine was to run"
    return "its smoke test failed"


def read_previous(path: Path) -> dict[str, Any]:
    """An earlier plan, as ``trtpack matrix --format json`` wrote it.

    Errors: ConfigError for a file that is none.
    """
    try:
        plan = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise ConfigError(f"cannot read {path}: {reason}", hint="leave --since away") from error
    if not isinstance(plan, dict) or plan.get("schema") != SCHEMA:
        raise ConfigError(
            f"{path} is no plan of trtpack matrix ({SCHEMA})",
            hint="give --since what trtpack matrix --format json wrote",
        )
    return plan
