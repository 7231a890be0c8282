# SPDX-License-Identifier: Apache-2.0
"""A plan for people, for GitHub Actions, for GitLab, and as JSON. The same plan, the same bytes."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from trtpack_runtime import __version__

from ..errors import ConfigError
from .cells import Cell, Plan

SCHEMA = "trtpack.matrix/1"
FORMATS = ("text", "github", "gitlab", "json")
_GITHUB_MOST = 256
"""Jobs of one matrix: docs.github.com, "Running variations of jobs in a workflow"."""


def to_json(plan: Plan, results: Mapping[str, str] | None = None) -> str:
    """Every cell with its state, and its result where there is one."""
    cells = []
    for cell in plan.cells:
        plain = dataclasses.asdict(cell)
        plain = {"cell": plain.pop("name"), **plain}
        plain["result"] = (results or {}).get(cell.name, cell.result)
        cells.append({key: value for key, value in plain.items() if value not in ("", ())})
    whole = {
        "schema": SCHEMA,
        "trtpack": __version__,
        "matrix": str(plan.matrix.path),
        "cells": cells,
    }
    return json.dumps(whole, indent=2) + "\n"


def to_github(plan: Plan) -> str:
    """Lines for ``$GITHUB_OUTPUT``: the matrices ``build`` and ``test``; whether they have cells.

    Errors: ConfigError for more cells than GitHub takes.
    """
    cells = plan.to_run
    if len(cells) > _GITHUB_MOST:
        raise ConfigError(
            f"{plan.matrix.path} has {len(cells)} cells to run, GitHub takes {_GITHUB_MOST}",
            hint="split the file, or leave cells out with [[exclude]]",
        )
    tested = [cell for cell in cells if cell.runner]
    lines = []
    for name, of in (("build", cells), ("test", tested)):
        text = json.dumps({"include": [_plain(cell) for cell in of]}, separators=(",", ":"))
        lines += [f"{name}={text}", f"has-{name}={'true' if of else 'false'}"]
    return "\n".join(lines) + "\n"


def _plain(cell: Cell) -> dict[str, Any]:
    return {
        "cell": cell.name,
        "model": cell.model,
        "target": cell.asked,
        "key": cell.key,
        "source": cell.source,
        "build-arguments": shlex.join(cell.build_arguments),
        "run-arguments": shlex.join(cell.run_arguments),
        "build-runner": list(cell.build_runner),
        "runner": list(cell.runner),
        "expected": cell.expected,
    }


def to_gitlab(plan: Plan) -> str:
    """A child pipeline: a job to build each cell, one to test it, over the template's jobs."""
    return "\n".join(_gitlab_lines(plan)) + "\n"


def _gitlab_lines(plan: Plan) -> Iterator[str]:
    yield f"# trtpack matrix {plan.matrix.path} --format gitlab"
    yield "include:"
    yield f"  - local: {json.dumps(plan.matrix.gitlab_template)}"
    yield "stages: [build, test, verdict]"
    for cell in plan.to_run:
        yield from _gitlab_job("build", cell, cell.build_runner, None)
        if cell.runner:
            yield from _gitlab_job("test", cell, cell.runner, f"build {cell.name}")
    yield "verdict:"
    yield "  extends: .trtpack-verdict"


def _gitlab_job(verb: str, cell: Cell, tags: tuple[str, ...], needs: str | None) -> Iterator[str]:
    arguments = cell.build_arguments if verb == "build" else cell.run_arguments
    yield f"{json.dumps(f'{verb} {cell.name}')}:"
    yield f"  extends: .trtpack-{verb}"
    yield f"  tags: {json.dumps(list(tags))}"
    if needs:
        yield f"  needs: [{json.dumps(needs)}]"
    if cell.expected == "failure":
        yield "  allow_failure: true"
    yield "  variables:"
    yield f"    CELL: {json.dumps(cell.name)}"
    yield f"    ARGUMENTS: {json.dumps(shlex.join(arguments))}"
    if verb == "build":
        yield f"    SOURCE: {json.dumps(cell.source)}"
        yield f"    TARGET: {json.dumps(cell.asked)}"


def to_text(plan: Plan, results: Mapping[str, str] | None = None) -> Iterator[str]:
    """A line for each cell: what becomes of it, and why."""
    width = max((len(cell.name) for cell in plan.cells), default=0)
    for cell in plan.cells:
        state = (results or {}).get(cell.name) or cell.state
        why = cell.reason or (f"may fail: {cell.expected_reason}" if cell.expected_reason else "")
        yield f"{cell.name:{width}}  {state:10}  {why}".rstrip()
