# SPDX-License-Identifier: Apache-2.0
"""``trtpack build --matrix``: every cell of a file, here or on a build farm."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from trtpack_runtime.atomic import cannot_write, check_writable, replaced
from trtpack_runtime.errors import CompileError

from ..farm import MatrixReport, Settings, build_matrix
from ..matrix import Cell, plan_cells, read_matrix
from ..options import Options
from .logs import logging_to
from .matrix import CommandFlags
from .matrix_view import view_for

REPORT = "report.json"
"""The report of all cells, in the output folder."""
_CORES_A_JOB = 4


def run_matrix(
    file: Path,
    *,
    output: str,
    report: str | None,
    jobs: int | None,
    farm: str | None,
    farm_timeout: float,
    no_worker: Any,
    verbose: int,
    quiet: bool,
    log_file: str | None,
) -> None:
    """Builds the cells, prints what became of each and writes it as JSON.

    Raises:
        TrtpackError: what is wrong with the file, the farm or the folder, before any work.
        CompileError: when all is done, where a cell failed that may not.
    """
    flags = CommandFlags()
    plan = plan_cells(read_matrix(file, flags), flags)
    settings = Settings(
        Path(output),
        jobs or max(1, len(os.sched_getaffinity(0)) // _CORES_A_JOB),
        farm,
        farm_timeout,
        no_worker,
    )
    if report is not None:
        check_writable(Path(report), "--report")

    def options_of(cell: Cell) -> Options:
        return flags.parsed([*cell.build_arguments, "--target", cell.asked])

    view = view_for(quiet=quiet)
    with logging_to(-1 if quiet else verbose, Path(log_file) if log_file else None, view.says):
        try:
            made = build_matrix(plan, options_of, settings, view)
        except KeyboardInterrupt:
            view.closes()
            if view.count:
                view.says(f"{view.count_done()}; finished bundles are kept in {output}")
            raise
    for path in (str(Path(output, REPORT)), report):
        if path is not None:
            _write(Path(path), made)
    if not quiet:
        click.echo(made.to_text(), nl=False)
    if not made.passed:
        count = len(made.failures)
        raise CompileError(
            f"{count} of {len(plan.to_run)} cells failed: {', '.join(made.failures)}",
            hint=f"see their logs and {Path(output, REPORT)}; the other bundles are whole",
        )


def _write(path: Path, report: MatrixReport) -> None:
    try:
        with replaced(path) as file:
            file.write(report.to_json_text().encode())
    except OSError as error:
        raise cannot_write(path, error) from error
