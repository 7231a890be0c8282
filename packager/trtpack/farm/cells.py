# SPDX-License-Identifier: Apache-2.0
"""Builds the cells of a matrix that are to run, several at once, and loses none for another's sake.

A process here does what needs the model: capture, convert, pack, prove. Engines that devices build
go to workers of a farm that have the target, with the bundle; where there is no farm, or no worker
has it, this host builds what it can.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from trtpack_runtime.device import facts
from trtpack_runtime.errors import TrtpackError

from ..errors import ConfigError
from ..matrix import Cell, Plan, judge_builds
from ..options import Options
from ..work_folder import work_folder
from .cluster import Cluster
from .farmed import Farmed
from .finishing import Unfinished
from .processes import Crew, Said
from .report import HERE, CellResult, MatrixReport
from .view import View
from .work import BUNDLE, Work

_TICK_S = 0.1
_TRIES = 2
"""How often a process here may die of a cell."""


@dataclass(frozen=True)
class Settings:
    """How to build a matrix: where bundles go, how many cells at once here, and who else helps.

    Where no worker of ``farm`` has a target for ``farm_timeout_s``, nor this host, its cells fail,
    or with ``no_worker`` ``defer`` their engines are left to the device.
    """

    output: Path
    jobs: int = 1
    farm: str | None = None
    farm_timeout_s: float = 60.0
    no_worker: Literal["fail", "defer"] = "fail"


def build_matrix(
    plan: Plan, options_of: Callable[[Cell], Options], settings: Settings, view: View
) -> MatrixReport:
    """Builds ``OUTPUT/CELL/bundle.tar`` with its ``build.json`` for every cell that is to run.

    ``options_of`` answers what ``trtpack build`` would be told for a cell. A cell that fails is in
    the report; what was at its place stays.

    Raises:
        ConfigError: the output folder cannot be written, or no scheduler answers.
    """
    began = time.monotonic()
    _check_output(settings.output)
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(settings.farm)) if settings.farm else None
        folder = stack.enter_context(work_folder(settings.output / BUNDLE))
        crew = stack.enter_context(Crew(settings.jobs))
        works = [Work.of(cell, options_of(cell), folder) for cell in plan.to_run]
        stack.callback(view.closes)
        if cluster is not None and cluster.dashboard:
            view.says(f"dashboard at {cluster.dashboard}")
        view.begins(len(works))
        results, notes = _Run(works, crew, cluster, settings, view).results()
    verdict = judge_builds(plan, {n: r.reason for n, r in results.items() if r.state == "failed"})
    cells = tuple(
        replace(results[cell.name], result=verdict.results[cell.name])
        if cell.name in results
        else _left_out(cell)
        for cell in plan.cells
    )
    surprises = tuple(f"{name}: {text}" for name, text in verdict.surprises.items())
    return MatrixReport(
        str(plan.matrix.path),
        str(settings.output),
        cells,
        verdict.failures,
        (*notes, *surprises),
        settings.farm,
        settings.jobs,
        time.monotonic() - began,
    )


class _Run:
    def __init__(
        self,
        works: list[Work],
        crew: Crew,
        cluster: Cluster | None,
        settings: Settings,
        view: View,
    ) -> None:
        self._works = {work.cell.name: work for work in works}
        self._crew, self._settings, self._view = crew, settings, view
        self._facts = facts()
        self._farmed: Farmed | None = None
        if cluster is not None:
            self._farmed = Farmed(cluster, self._facts, settings.farm_timeout_s, view)
        self._results: dict[str, CellResult] = {}

    def results(self) -> tuple[dict[str, CellResult], tuple[str, ...]]:
        """What became of each cell, by name, and what is to be told besides."""
        while len(self._results) < len(self._works):
            self._start()
            for said in self._crew.said(_TICK_S):
                self._heard(self._works[said.cell], said)
            if self._farmed is not None:
                self._hear_farm(self._farmed)
        return self._results, self._farmed.notes if self._farmed else ()

    def _start(self) -> None:
        """Gives processes here what is queued; what measures on this GPU, one after the other."""
        tuning = any(w.phase == "here" and w.takes_the_gpu(self._facts) for w in self._all())
        farm = self._farmed is not None
        for work in sorted(self._all(), key=lambda w: not (farm and w.for_devices)):  # work for it
            if work.phase != "queued" or not self._crew.is_free:
                continue
            if self._farmed is not None and work.for_devices and not work.tries:
                work.by_farm = self._farmed.takes(work)
            if tuning and work.takes_the_gpu(self._facts):
                continue
            tuning = tuning or work.takes_the_gpu(self._facts)
            work.phase, work.began = "here", work.began or time.monotonic()
            work.tries += not work.by_farm
            self._view.at(work.cell.name, HERE, "start")
            self._crew.start(work.request())

    def _heard(self, work: Work, said: Said) -> None:
        told = said.told
        if "text" in told:
            self._view.at(work.cell.name, HERE, told["text"])
        elif "died" in told:
            self._died(work, told["died"])
        elif "error" in told:
            self._fail(work, told["error"])
        else:
            work.report = told["report"]
            self._made(work)

    def _made(self, work: Work) -> None:
        """A process here wrote a bundle: it is whole, or waits for its engines."""
        bundle = work.folder / BUNDLE
        try:
            unfinished = Unfinished.of(bundle) if work.by_farm else None
            if unfinished is None:
                self._end(work, work.built(bundle, work.reported(), self._settings.output))
                return
        except TrtpackError as error:
            self._fail(work, _plain(error))
            return
        work.unfinished, work.phase = unfinished, "waiting"

    def _died(self, work: Work, how: str) -> None:
        work.tries += work.by_farm
        if work.tries < _TRIES:
            self._view.says(f"{work.cell.name}: its process ended {how}; it is begun again")
            work.phase = "queued"
            return
        message = f"the process that built it ended {how}, {_TRIES} times"
        self._fail(work, _error("CompileError", message, "free memory, or give fewer --jobs"))

    def _hear_farm(self, farmed: Farmed) -> None:
        for work, outcome in farmed.go_on(self._all()):
            if outcome.again_here and work.built_here(self._facts):
                self._view.says(f"{work.cell.name}: {outcome.again_here}; it is built here")
                work.by_farm, work.phase, work.tries = False, "queued", max(work.tries, 1)
            elif outcome.nobody and self._settings.no_worker == "defer":
                assert work.unfinished is not None
                engines = work.reported()
                self._finish(work, work.unfinished.path, engines)
            elif outcome.error is not None:
                self._fail(work, outcome.error)
            else:
                assert outcome.bundle is not None
                self._finish(work, outcome.bundle, outcome.engines)

    def _finish(self, work: Work, bundle: Path, engines: tuple[Any, ...]) -> None:
        try:
            self._end(work, work.built(bundle, engines, self._settings.output))
        except TrtpackError as error:
            self._fail(work, _plain(error))

    def _fail(self, work: Work, error: Mapping[str, str]) -> None:
        self._end(work, work.failed(error, self._settings.output))

    def _end(self, work: Work, result: CellResult) -> None:
        work.phase = "done"
        shutil.rmtree(work.folder, ignore_errors=True)
        self._results[work.cell.name] = result
        self._view.ends(result)

    def _all(self) -> list[Work]:
        return list(self._works.values())


def _check_output(folder: Path) -> None:
    """Makes the folder.

    Raises:
        ConfigError: it is a file, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with work_folder(folder / BUNDLE):
            pass
    except OSError as error:
        reason = "it is no folder" if folder.exists() and not folder.is_dir() else error.strerror
        raise ConfigError(
            f"cannot write to the folder {folder}: {reason}", hint="choose another --output"
        ) from error


def _left_out(cell: Cell) -> CellResult:
    state: Literal["impossible", "excluded"] = (
        "impossible" if cell.state == "impossible" else "excluded"
    )
    return CellResult(cell.name, cell.model, cell.target, state, reason=cell.reason)


def _plain(error: TrtpackError) -> dict[str, str]:
    return _error(type(error).__name__, error.message, error.hint)


def _error(kind: str, message: str, hint: str) -> dict[str, str]:
    return {"class": kind, "message": message, "hint": hint}
