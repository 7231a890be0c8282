# SPDX-License-Identifier: Apache-2.0
"""Takes cells whose engines workers are to build through the farm, and takes up what comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trtpack_runtime.farm.engines as tasks
from trtpack_runtime.device import installed
from trtpack_runtime.errors import TrtpackError
from trtpack_runtime.finish import Stores

from .cluster import ONE_RELEASE, Cluster
from .finishing import finish_with_answer, finish_with_stored, stored
from .report import EngineResult
from .targets import FarmWorker, Fit, fit
from .view import View
from .work import Work

_AT_ONCE = 2
"""Tasks that a worker has at most, so that the scheduler holds few bundles."""
_TRIES = 3
"""How often engines are begun again that a worker was stopped at."""
_FINISHED = "finished.tar"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell's engines: a ``bundle`` that has them, or an ``error``.

    ``again_here`` says why this host should try it; ``nobody`` that no worker has the target.
    """

    bundle: Path | None = None
    engines: tuple[EngineResult, ...] = ()
    error: Mapping[str, str] | None = None
    again_here: str = ""
    nobody: bool = False


class Farmed:
    """The cells of a run that are with the farm."""

    def __init__(
        self, cluster: Cluster, facts: Mapping[str, Any], patience_s: float, view: View
    ) -> None:
        self._cluster, self._facts = cluster, facts
        self._patience_s, self._view = patience_s, view
        self._stores = Stores()
        self._alone_since: dict[str, float] = {}  # by target: when its last worker was gone
        self._notes = dict.fromkeys(cluster.notes)
        self._workers: tuple[FarmWorker, ...] = ()
        self._fits: dict[tuple[str, str], Fit] = {}  # of these workers

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be told of workers, each once."""
        return tuple(self._notes)

    def fit(self, work: Work) -> Fit:
        """The workers that build a cell's engines."""
        workers = self._cluster.workers()
        if workers is not self._workers:
            self._workers, self._fits = workers, {}
        asked = (work.target.name, work.kind)
        if asked not in self._fits:
            self._fits[asked] = fit(work.names, work.target, work.kind, workers)
        found = self._fits[asked]
        if found.workers:
            self._alone_since.pop(work.target.key, None)
        for note in (*found.refused, *self._odd()):
            self._note(note)
        return found

    def takes(self, work: Work) -> bool:
        """Whether a cell's engines are left to the farm: where it has the target, or must have."""
        if self.fit(work).workers or not work.built_here(self._facts):
            return True
        self._note(f"no worker of the farm has {work.cell.target}: its engines are built here")
        return False

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes[text] = None
            self._view.says(text)

    def go_on(self, works: Sequence[Work]) -> Iterator[tuple[Work, Outcome]]:
        """Sends what waits, and answers what is done with."""
        by_name = {work.cell.name: work for work in works}
        for told in self._cluster.told():
            work = by_name[told["cell"]]
            if work.phase == "sent":
                work.tries += "began" in told
                self._view.at(work.cell.name, told["name"], told.get("text", "start"))
        for work in works:
            outcome = None
            if work.phase == "waiting":
                outcome = self._sent(work, works)
            elif work.phase == "sent":
                outcome = self._answered(work)
            if outcome is not None:
                yield work, outcome

    def _sent(self, work: Work, works: Sequence[Work]) -> Outcome | None:
        """Sends a cell where a worker has room for it; what is in this host's store is not sent."""
        assert work.unfinished is not None
        found = self.fit(work)
        if not found.workers:
            return self._alone(work, found)
        if not self._cluster.answers:
            self._view.waits(work.cell.name, "the scheduler does not answer")
            return None
        others = [w for w in works if w.phase == "sent" and w.target.key == work.target.key]
        if len(others) >= _AT_ONCE * len(found.workers):
            self._view.waits(work.cell.name, f"queued for {found.resource}")
            return None
        try:
            if work.options.cache and (outcome := self._stored(work, found)) is not None:
                return outcome
        except TrtpackError as error:
            return _failed(error)
        try:
            work.task = self._cluster.submit(
                work.label,
                work.cell.name,
                work.unfinished.path.read_bytes(),
                work.unfinished.variant,
                work.unfinished.segments,
                work.options.cache,
                found,
            )
        except TrtpackError as error:
            work.tries += 1
            return self._again(work, error.message)
        work.phase = "sent"
        self._view.waits(work.cell.name, f"queued for {found.resource}")
        return None

    def _stored(self, work: Work, found: Fit) -> Outcome | None:
        assert work.unfinished is not None
        for worker in found.workers:
            assert worker.facts is not None
            engines = stored(work.unfinished, worker.facts, self._stores.engines)
            if engines is not None:
                output = work.folder / _FINISHED
                made = finish_with_stored(
                    work.unfinished, engines, worker.facts, output, self._stores
                )
                return Outcome(output, made)
        return None

    def _answered(self, work: Work) -> Outcome | None:
        assert work.task is not None
        assert work.unfinished is not None
        status = work.task.status
        if status == "pending":
            found = self.fit(work)
            outcome = None if found.workers else self._alone(work, found)
            if outcome is not None:
                work.task.forget()
            return outcome
        if status in ("lost", "cancelled"):
            return self._again(work, "the worker that had it went away")
        try:
            answer = work.task.answer
        except Exception as error:  # Dask's own, of any kind
            return Outcome(error=_died(error), again_here="no worker could build it")
        finally:
            work.task = None
        if "error" in answer:
            return self._refused(work, answer["error"], answer["name"])
        output = work.folder / _FINISHED
        kept = self._stores if work.options.cache else None
        try:
            engines = finish_with_answer(work.unfinished, answer, answer["name"], output, kept)
        except TrtpackError as error:
            return _failed(error)
        return Outcome(output, engines)

    def _refused(self, work: Work, told: Mapping[str, str], name: str) -> Outcome | None:
        error = tasks.raised(told, name)
        if told["class"] in ("BuildCancelled", "BuildKilled"):
            return self._again(work, error.message)
        here = f"worker {name} could not build it" if told["class"] == "EngineBuildError" else ""
        return Outcome(error=_plain(error), again_here=here)

    def _again(self, work: Work, why: str) -> Outcome | None:
        """Sends it again, but not for ever."""
        work.task, work.phase = None, "waiting"
        if work.tries < _TRIES:
            self._view.says(f"{work.cell.name}: {why}; it is begun again")
            return None
        error = {
            "class": "EngineBuildError",
            "message": why,
            "hint": "look at the farm's workers: one most likely ran out of memory",
        }
        return Outcome(error=error, again_here=why)

    def _alone(self, work: Work, found: Fit) -> Outcome | None:
        """No worker has its target: it waits a while, unless this host can do it."""
        now = time.monotonic()
        since = self._alone_since.setdefault(work.target.key, now)
        left = 0.0 if work.built_here(self._facts) else self._patience_s - (now - since)
        target = work.cell.target
        why = f"no worker of the farm has {target}"
        if self._cluster.is_gone:
            why, left = f"the scheduler at {self._cluster.address} went away", 0.0
        if left > 0:
            self._view.waits(work.cell.name, f"{why}: waiting {left:.0f} s more for one")
            return None
        workers = () if self._cluster.is_gone else self._cluster.workers()
        has = sorted({t for w in workers for t in w.targets})
        known = f"; they have {', '.join(has)}" if has else ""
        more = f" ({'; '.join(found.refused)})" if found.refused else ""
        error = {
            "class": "DeviceError",
            "message": f"{why}{more}{known}",
            "hint": f"start one there: trtpack farm worker {self._cluster.address} --target "
            f"{work.target.name}; or leave engines to the device: --no-worker defer",
        }
        return Outcome(error=error, again_here=why, nobody=True)

    def _odd(self) -> Iterator[str]:
        """What is unlike this host at workers, and does no harm."""
        mine = {"torch": installed("torch"), "distributed": installed("distributed")}
        for worker in self._cluster.workers():
            if worker.facts is None:
                continue
            torch = worker.facts.get("torch")
            if torch and torch != mine["torch"]:
                yield (
                    f"worker {worker.name} has PyTorch {torch}, this host {mine['torch']}; its "
                    "engines do not depend on it"
                )
            if worker.distributed != mine["distributed"]:
                yield (
                    f"worker {worker.name} has Dask {worker.distributed}, this host "
                    f"{mine['distributed']}: {ONE_RELEASE}"
                )


def _died(error: BaseException) -> dict[str, str]:
    """What Dask says of a task that it gave up."""
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return {"class": "EngineBuildError", "message": message, "hint": "look at the farm's workers"}


def _failed(error: TrtpackError) -> Outcome:
    return Outcome(error=_plain(error))


def _plain(error: TrtpackError) -> dict[str, str]:
    return {"class": type(error).__name__, "message": error.message, "hint": error.hint}
