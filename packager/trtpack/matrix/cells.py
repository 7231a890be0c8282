# SPDX-License-Identifier: Apache-2.0
"""The cells of a matrix: which there are, which are impossible and why, which have changed."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..engine_options import check_engine_options
from ..errors import ConfigError
from ..target import catalogue_for, unmet
from ..toml_places import FileError
from .content_keys import content_key
from .file import Column, Flags, Include, Matrix, Model, Rule, Settings

State = Literal["run", "unchanged", "impossible", "excluded"]
PASSED = ("passed", "expected failure", "passes unexpectedly")
"""Results that need no second run while nothing changes."""


@dataclass(frozen=True)
class Cell:
    """One model built for one target. ``arguments`` are those of ``trtpack build`` and ``run``."""

    name: str
    model: str
    target: str
    state: State
    reason: str  # why it is impossible or excluded
    source: str = ""
    asked: str = ""
    key: str = ""
    build_arguments: tuple[str, ...] = ()
    run_arguments: tuple[str, ...] = ()
    build_runner: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()
    expected: Literal["success", "failure"] = "success"
    expected_reason: str = ""
    strict: bool = False
    result: str = ""  # of the run before, where nothing has changed since


@dataclass(frozen=True)
class Plan:
    """All cells of a matrix, in the order of its file."""

    matrix: Matrix
    cells: tuple[Cell, ...]

    @property
    def to_run(self) -> tuple[Cell, ...]:
        """Those that are to be built."""
        return tuple(cell for cell in self.cells if cell.state == "run")


def plan_cells(matrix: Matrix, flags: Flags, previous: Mapping[str, Any] | None = None) -> Plan:
    """Every cell of ``matrix`` with its state; ``previous`` is an earlier plan as JSON.

    Errors: FileError for a rule that is about no cell, and for options that contradict one another.
    """
    before = {cell["cell"]: cell for cell in (previous or {}).get("cells", ())}
    problems: list[str] = []
    used: set[Rule] = set()
    cells = []
    for name, model, column, include in _pairs(matrix):
        excluded = _rule(matrix.excludes, name, model, column, used)
        expected = _rule(matrix.expected, name, model, column, used)
        if excluded:
            cells.append(Cell(name, model.name, column.name, "excluded", excluded.reason))
            continue
        try:
            cells.append(_cell(matrix, flags, name, model, column, include, expected, before))
        except ConfigError as error:
            place = f"{matrix.path}: cell {name}"
            problems.append(f"{place}: {error.message.splitlines()[0]}")
    for rule in (*matrix.excludes, *matrix.expected):
        if rule not in used:
            problems.append(f"{rule.place}: is about no cell")
    if problems:
        raise FileError(problems, hint=f"correct {matrix.path}")
    return Plan(matrix, tuple(cells))


def _pairs(matrix: Matrix) -> Iterator[tuple[str, Model, Column, Include | None]]:
    for model in matrix.models:
        for column in matrix.columns:
            yield f"{model.name}-{column.name}", model, column, None
    models = {model.name: model for model in matrix.models}
    columns = {column.name: column for column in matrix.columns}
    for include in matrix.includes:
        yield include.name, models[include.model], columns[include.target], include


def _rule(
    rules: tuple[Rule, ...], name: str, model: Model, column: Column, used: set[Rule]
) -> Rule | None:
    fits = fnmatch.fnmatchcase
    for rule in rules:
        if (
            fits(name, rule.cell)
            and fits(model.name, rule.model)
            and fits(column.name, rule.target)
        ):
            used.add(rule)
            return rule
    return None


def _cell(
    matrix: Matrix,
    flags: Flags,
    name: str,
    model: Model,
    column: Column,
    include: Include | None,
    expected: Rule | None,
    before: Mapping[str, Any],
) -> Cell:
    def impossible(reason: str) -> Cell:
        return Cell(name, model.name, column.name, "impossible", reason)

    if column.target is None:
        return impossible(column.impossible or "")
    if reasons := list(unmet(column.target, model.needs, catalogue_for(column.asked))):
        return impossible("; ".join(reasons))
    build: Settings = {**matrix.build, **model.build, **column.build}
    run: Settings = {**matrix.run, **model.run, **column.run}
    if include is not None:
        build, run = {**build, **include.build}, {**run, **include.run}
    options = flags.options(model.model, column.asked, build)
    try:
        check_engine_options(options, [column.target])
    except ConfigError as error:
        return impossible(error.message)
    arguments = tuple(flags.words("build", build)), tuple(flags.words("run", run))
    key = content_key(model, column.target, options, arguments)
    same = before.get(name, {})
    unchanged = same.get("key") == key and same.get("result", PASSED[0]) in PASSED
    return Cell(
        name=name,
        model=model.name,
        target=column.name,
        state="unchanged" if unchanged else "run",
        reason="",
        source=model.model,
        asked=column.asked,
        key=key,
        build_arguments=arguments[0],
        run_arguments=arguments[1],
        build_runner=column.build_runner,
        runner=column.runner,
        expected="failure" if expected else "success",
        expected_reason=expected.reason if expected else "",
        strict=bool(expected and expected.strict),
        result=same.get("result", "") if unchanged else "",
    )
