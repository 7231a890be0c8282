# SPDX-License-Identifier: Apache-2.0
"""Runs models of the zoo, each in a process of its own, and keeps what was found."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .trial import MODES, Settings, trials

__all__ = ["MODES", "Found", "Results", "Settings", "keep", "read", "run"]

Found = dict[str, Any]
Results = dict[str, Found]
"""``model/mode`` -> what was found."""


def run(
    models: dict[str, Sequence[str]],
    settings: Settings,
    jobs: int,
    seconds: float,
    done: Callable[[str, Found], None],
) -> None:
    """Tries every model in its modes; ``done`` is told each result by ``model/mode``.

    ``jobs`` models are tried side by side, a mode for at most ``seconds``. The processes are forked
    from one that has imported what they all need.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.zoo.trial"])
    with ThreadPoolExecutor(jobs) as pool:
        list(
            pool.map(
                lambda item: _Model(context, *item, settings, seconds).run(done), models.items()
            )
        )


@dataclass
class _Model:
    context: Any
    name: str
    modes: Sequence[str]
    settings: Settings
    seconds: float

    def run(self, done: Callable[[str, Found], None]) -> None:
        waiting = list(self.modes)
        while waiting:
            for mode, found in self._one_process(waiting):
                done(f"{self.name}/{mode}", found)
                waiting.remove(mode)

    def _one_process(self, modes: Sequence[str]) -> list[tuple[str, Found]]:
        """What one process finds: every mode's result, the last a failure where it died."""
        here, there = self.context.Pipe(duplex=False)
        arguments = (there, self.name, tuple(modes), self.settings)
        process = self.context.Process(target=_child, args=arguments)
        process.start()
        there.close()
        found: dict[str, Found] = {}
        end, problem, ended = time.monotonic() + self.seconds, None, None
        while ended is None and problem is None:
            if not here.poll(max(0.0, end - time.monotonic())):
                problem = f"not done after {self.seconds:g} s"
                continue
            try:
                mode, result, is_last = here.recv()
            except EOFError:
                process.join()
                ended = process.exitcode
                continue
            found[mode] = result
            if is_last:
                end = time.monotonic() + self.seconds
        if problem:
            process.kill()
            process.join()
        elif ended:
            problem = f"the process ended with {ended}"
        if problem:
            mode = next(reversed(found), modes[0])
            found.setdefault(mode, {"seconds": {}})["error"] = problem
        return list(found.items())


def _child(pipe: Connection, name: str, modes: tuple[str, ...], settings: Settings) -> None:
    with Path(settings.log or os.devnull).open("a") as log:
        for stream in (1, 2):  # torch and TensorRT tell much
            os.dup2(log.fileno(), stream)
    for message in trials(name, modes, settings):
        pipe.send(message)
    pipe.close()


def read(path: Path) -> Results:
    """The results kept in a file; none where there is no file."""
    try:
        kept: Results = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return kept


def keep(path: Path, results: Results) -> None:
    """Writes the results so that a run cut short leaves a whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    lines = [f"{json.dumps(key)}: {json.dumps(results[key])}" for key in sorted(results)]
    fresh.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    fresh.replace(path)
