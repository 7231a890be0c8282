# SPDX-License-Identifier: Apache-2.0
"""One cell on its way from the matrix to a bundle in the output folder."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from trtpack_runtime.atomic import cannot_write, replaced
from trtpack_runtime.builders import BUILDERS

from ..engine_options import kind_for
from ..matrix import Cell
from ..options import EngineKind, Options
from ..target import Target, find_target
from .cluster import Task
from .finishing import Unfinished
from .processes import Request
from .report import CellResult, EngineResult
from .targets import cannot_build, spellings

Phase = Literal["queued", "here", "waiting", "sent", "done"]
BUNDLE, REPORT, LOG = "bundle.tar", "build.json", "build.log"


@dataclass
class Work:
    """A cell, and how far it is.

    ``queued`` for a process here, ``here`` in one; with ``by_farm`` its engines are ``waiting``
    for a worker, or ``sent`` to the farm.
    """

    cell: Cell
    options: Options
    target: Target
    kind: EngineKind
    names: tuple[str, ...]
    folder: Path
    phase: Phase = "queued"
    by_farm: bool = False
    tries: int = 0
    began: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)
    unfinished: Unfinished | None = None
    task: Task | None = None

    @staticmethod
    def of(cell: Cell, options: Options, folder: Path) -> Work:
        """A cell that nothing is done of yet; ``folder`` takes what is made before it is whole."""
        target = find_target(cell.asked, options.engine)
        kind, names = kind_for(options, target), spellings(target)
        return Work(cell, options, target, kind, names, folder / cell.name)

    @property
    def label(self) -> str:
        """What people see of it elsewhere: ``resnet18 @ orin``."""
        plain = self.cell.name == f"{self.cell.model}-{self.cell.target}"
        return f"{self.cell.model if plain else self.cell.name} @ {self.cell.target}"

    @property
    def for_devices(self) -> bool:
        """Whether its engines are of a kind that devices build."""
        return self.kind in BUILDERS and not self.options.defer

    def built_here(self, facts: Mapping[str, Any]) -> bool:
        """Whether this host can build its engines."""
        return self.kind not in BUILDERS or cannot_build(self.kind, self.target, facts) is None

    def takes_the_gpu(self, facts: Mapping[str, Any]) -> bool:
        """Whether building it measures on this host's GPU, which one engine has to itself."""
        if self.by_farm or self.options.defer or not facts["gpus"]:
            return False
        on_gpu = self.kind == "inductor" and self.target.sm is not None
        return on_gpu or (self.kind == "tensorrt" and self.built_here(facts))

    def request(self) -> Request:
        """What a process here is told."""
        self.folder.mkdir(exist_ok=True)
        options = replace(
            self.options,
            output=self.folder / BUNDLE,
            report=None,
            defer=self.options.defer or self.by_farm,
        )
        return Request(self.cell.name, self.cell.source, options, self.folder / LOG)

    def reported(self) -> tuple[EngineResult, ...]:
        """Its engines as the process here told."""
        keys = ("segment", "kind", "nbytes", "seconds", "cached", "age_seconds", "deferred")
        return tuple(
            EngineResult(**{key: engine[key] for key in keys})
            for target in self.report["targets"]
            for engine in target["engines"]
            if engine.get("failed") is None
        )

    def built(self, bundle: Path, engines: Sequence[EngineResult], output: Path) -> CellResult:
        """Moves the bundle with its report to ``output``, the folder of all cells.

        Raises:
            ConfigError: the disk refuses.
        """
        place = output / self.cell.name
        nbytes, digest = bundle.stat().st_size, _digest(bundle)
        told = {engine.segment: engine for engine in engines}
        for target in self.report["targets"]:
            for engine in target["engines"]:
                if (made := told.get(engine["segment"])) is not None:
                    engine |= {"worker": made.worker, "deferred": made.deferred}
                    engine |= {"nbytes": made.nbytes, "seconds": made.seconds}
                    engine |= {"cached": made.cached, "age_seconds": made.age_seconds}
        self.report["bundle"] |= {"path": str(place / BUNDLE), "nbytes": nbytes}
        try:
            place.mkdir(exist_ok=True)
            bundle.replace(place / BUNDLE)
            with replaced(place / REPORT) as file:
                file.write((json.dumps(self.report, indent=2, sort_keys=True) + "\n").encode())
        except OSError as error:
            raise cannot_write(place / BUNDLE, error) from error
        (place / LOG).unlink(missing_ok=True)
        return replace(
            self._result(),
            state="built",
            bundle=str(place / BUNDLE),
            nbytes=nbytes,
            sha256=digest,
            engines=tuple(engines),
        )

    def failed(self, error: Mapping[str, str], output: Path) -> CellResult:
        """Why there is no bundle; what was printed is kept in ``output``, and a bundle there of an
        earlier build, without its report."""
        place, log = output / self.cell.name, None
        with suppress(OSError):
            (place / REPORT).unlink(missing_ok=True)
            if (self.folder / LOG).exists() and (self.folder / LOG).stat().st_size:
                place.mkdir(exist_ok=True)
                (self.folder / LOG).replace(place / LOG)
                log = str(place / LOG)
        return replace(
            self._result(),
            reason=error["message"],
            hint=error["hint"],
            error=error["class"],
            log=log,
        )

    def _result(self) -> CellResult:
        return CellResult(
            self.cell.name,
            self.cell.model,
            self.cell.asked,
            "failed",
            key=self.cell.key,
            seconds=time.monotonic() - self.began if self.began else 0.0,
            tries=max(self.tries, 1),
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
