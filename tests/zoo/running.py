# SPDX-License-Identifier: Apache-2.0
"""Runs models of the zoo, each in a process of its own, and keeps what was found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODES = ("static", "dynamic", "float16")
_FLAGS: dict[str, tuple[str, ...]] = {
    "static": (),
    "dynamic": ("--dynamic",),
    "float16": ("--float16",),
}

Results = dict[str, dict[str, Any]]
"""``model/mode`` -> what was found."""


@dataclass(frozen=True)
class Settings:
    """``seconds`` is the longest a model may take; ``flags`` go to every trial."""

    jobs: int
    seconds: float
    flags: tuple[str, ...] = ()


def run(
    wanted: Sequence[tuple[str, str]],
    settings: Settings,
    done: Callable[[str, dict[str, Any]], None],
) -> None:
    """Tries every (model, mode); ``done`` is told each result by ``model/mode`` as it comes."""
    with ThreadPoolExecutor(settings.jobs) as pool:
        futures = {pool.submit(_trial, *pair, settings): pair for pair in wanted}
        for future in as_completed(futures):
            name, mode = futures[future]
            done(f"{name}/{mode}", future.result())


def _trial(name: str, mode: str, settings: Settings) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.zoo.trial", name, *_FLAGS[mode], *settings.flags]
    paths = [str(ROOT), str(ROOT / "packager"), str(ROOT / "runtime_py")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    try:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=settings.seconds,
            check=False,
        )
        output, problem = ended.stdout, None
        if ended.returncode:
            problem = f"the process ended with {ended.returncode}: {ended.stderr[-300:]}"
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        problem = f"not done after {settings.seconds:g} s"
    lines = [line for line in output.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {"seconds": {}}
    if problem:
        found["error"] = problem
    return found | {"wall": round(time.monotonic() - start, 1)}


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
    fresh.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    fresh.replace(path)
