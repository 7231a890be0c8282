# SPDX-License-Identifier: Apache-2.0
"""What a host can have done on the device: engines built or taken in, commands run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from .. import network as networks
from ..builders import BUILDERS, Site, Work
from ..bundle import open_bundle
from ..engine_store import EngineStore
from ..engines._processes import kill_children
from ..finish import Stores, Workshop, finish_segment
from ..progress import Progress
from ..segment_jobs import about_engine, segment_job
from ..tactics import TacticStore, to_lock
from .place import Place

Report = Callable[[Mapping[str, Any], bytes], None]
"""Tells the host how far a task is: plain values and, behind them, bytes."""

_PIECE = 65536


class Tasks:
    """The tasks of one connection, in the folder of ``place`` on the machine of ``facts``."""

    def __init__(self, place: Place, facts: Mapping[str, Any], paths: Sequence[str]) -> None:
        self._place, self._facts, self._paths = place, facts, tuple(paths)
        self._commands: set[subprocess.Popen[bytes]] = set()
        self._over = False

    def build(self, request: Mapping[str, Any], report: Report) -> dict[str, Any]:
        """Builds the engine of a segment; answers its record, and the files that ``get`` gives."""

        def told(progress: Progress) -> None:
            report({"progress": asdict(progress)}, b"")

        bundle = open_bundle(self._place.path(request["bundle"]))
        variant, segment = request["variant"], request["segment"]
        seed = request.get("seed")
        made = finish_segment(
            bundle,
            variant,
            segment,
            Workshop(self._facts, self._scratch(), self._stores(), told),
            seed=None if seed is None else self._place.path(seed).read_bytes(),
        )
        plan = self._place.path("built.plan")
        plan.unlink(missing_ok=True)
        try:
            plan.hardlink_to(made.path)
        except OSError:  # a disk that knows no links
            shutil.copyfile(made.path, plan)
        answer: dict[str, Any] = {
            "plan": plan.name,
            "kind": made.kind,
            "key": made.key,
            "record": dict(made.record),
            "seconds": made.seconds,
            "refused_tactics": made.refused_tactics,
            "tactics": None,
        }
        if made.learnt is not None:
            self._place.path("learnt.cache").write_bytes(made.learnt.blob)
            self._place.path("learnt.json").write_bytes(to_lock(made.learnt))
            answer["tactics"] = ["learnt.cache", "learnt.json"]
        return answer

    def adopt(self, request: Mapping[str, Any], _: Report) -> dict[str, Any]:
        """Takes an engine into the store that this device built for the host before."""
        bundle = open_bundle(self._place.path(request["bundle"]))
        job = segment_job(bundle, request["variant"], request["segment"])
        self._stores().engines.put(
            job.key(self._facts),
            self._place.path(request["plan"]),
            request["record"],
            about=about_engine(job, self._facts),
            seconds=request["seconds"],
        )
        return {}

    def probe(self, request: Mapping[str, Any], _: Report) -> dict[str, Any]:
        """Builds a part of a segment as the whole is built, and forgets the engine."""
        bundle = open_bundle(self._place.path(request["bundle"]))
        job = segment_job(bundle, request["variant"], request["segment"])
        network = networks.from_bytes(self._place.path(request["network"]).read_bytes())
        weights = [bundle.file_part(name) for name in bundle.manifest.weights.members]
        plan = self._scratch() / "probe.plan"
        try:
            work = Work("a part of it", network, weights, job.options)
            BUILDERS[job.ref.kind].build(work, plan, Site(self._facts, job.target), None)
        finally:
            plan.unlink(missing_ok=True)
        return {}

    def execute(self, request: Mapping[str, Any], report: Report) -> dict[str, Any]:
        """Runs ``trtpack`` with arguments in the folder; answers its exit ``code``."""
        path = os.pathsep.join([*self._paths, *filter(None, [os.environ.get("PYTHONPATH")])])
        child = subprocess.Popen(
            [sys.executable, "-m", "trtpack_runtime", *request["arguments"]],
            cwd=self._place.root,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._commands.add(child)
        if self._over:
            self.kill()
        assert child.stdout is not None
        assert child.stderr is not None
        beside = threading.Thread(target=_pass_on, args=(child.stderr, "err", report), daemon=True)
        beside.start()
        _pass_on(child.stdout, "out", report)
        beside.join()
        code = child.wait()
        self._commands.discard(child)
        return {"code": code if code >= 0 else 128 - code}

    def kill(self) -> None:
        """Ends everything at once."""
        self._over = True
        kill_children()
        for child in tuple(self._commands):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def _scratch(self) -> Path:
        folder = self._place.root / "scratch"
        folder.mkdir(exist_ok=True)
        return folder

    def _stores(self) -> Stores:
        """Those that ``trtpack run`` finds in the folder too."""
        return Stores(EngineStore(), TacticStore())


def _pass_on(source: IO[bytes], name: str, report: Report) -> None:
    descriptor = source.fileno()
    while data := os.read(descriptor, _PIECE):
        report({"stream": name}, data)
