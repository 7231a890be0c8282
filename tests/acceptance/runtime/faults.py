# SPDX-License-Identifier: Apache-2.0
"""What breaks while a bundle is loaded or runs: the right error, or a degraded module, each time.

Every fault happens in a process of its own (``faulty.py``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.acceptance.runtime.row import Row, Settings
from tests.acceptance.table import Bar

TITLE = "Faults"
PATIENCE_S = 240.0
WANTED: Mapping[str, Mapping[str, str]] = {
    "corrupted_header": {"failed": "cannot read the engine", "after": "right"},
    "corrupted_middle": {"after": "right"},
    "no_memory_at_load": {"error": "DeviceError: ", "after": "right"},
    "no_memory_at_run": {"error": "DeviceError: ", "after": "right"},
    "faulting_kernel": {"error": "DeviceLostError: "},
    "full_store": {"failed": "cannot write", "after": "right"},
    "sigterm": {"code": "143", "left": "nothing", "children": "ended"},
}
"""Case -> what must be within what it answers, by key."""

_DEFERRED = ("full_store", "sigterm")
"""Cases in which an engine is to be built."""


def rows(settings: Settings) -> Iterator[Row]:
    """A row for each fault."""
    for case in WANTED:
        if not settings.wants(case):
            continue
        if settings.device == "cpu":
            yield Row(
                case, notes=(f"{case} needs a GPU; tests/runtime/test_faults.py has doubles.",)
            )
            continue
        bundle = _bundle(settings.folder, deferred=case in _DEFERRED)
        folder = settings.folder / case
        answer = _terminated(bundle, folder) if case == "sigterm" else _broken(case, bundle, folder)
        yield judged(case, answer)


def judged(case: str, answer: Mapping[str, Any]) -> Row:
    """The row of one case, by what its process answered."""
    wrong = [
        f"{key}: {answer.get(key, answer.get('died', 'nothing'))}"
        for key, text in WANTED[case].items()
        if text not in _text(answer.get(key))
    ]
    found = "; ".join(wrong) or "as it should be"
    told = "; ".join(f"{key}: {_text(value)}" for key, value in answer.items() if value)
    bar = Bar(f"{case}: the right error, or a degraded module", found, not wrong)
    return Row(
        case, {"outcome": "as wanted" if not wrong else "wrong"}, (bar,), (f"{case}: {told}",)
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _environment(folder: Path) -> dict[str, str]:
    """Stores and temporary files of a case's own."""
    for name in ("cache", "data", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    own = {"XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "data", "TMPDIR": "tmp"}
    return {**os.environ, **{key: str(folder / name) for key, name in own.items()}}


def _broken(case: str, bundle: Path, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.acceptance.runtime.faulty", case, str(bundle)]
    try:
        done = subprocess.run(
            command,
            env=_environment(folder),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"died": f"no answer within {PATIENCE_S:.0f} s"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()[-3:]
        return {"died": f"status {done.returncode}: {' / '.join(said)}"}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _terminated(bundle: Path, folder: Path) -> dict[str, Any]:
    """``trtpack run`` is told to end while its engine is built."""
    run = subprocess.Popen(
        [sys.executable, "-m", "trtpack_runtime", "run", str(bundle), "--quiet"],
        env=_environment(folder),
    )
    workers, until = [], time.monotonic() + PATIENCE_S
    while not workers and run.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
        workers = workers_of(run.pid)
    time.sleep(1.0)  # the worker is well within its build
    run.send_signal(signal.SIGTERM)
    try:
        code = run.wait(60)
    except subprocess.TimeoutExpired:
        run.kill()
        code = run.wait()
    alive = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    left = [
        str(file.relative_to(folder))
        for place in ("tmp", "cache")
        for file in (folder / place).rglob("*")
        if file.is_file() and file.suffix != ".lock"
    ]
    return {
        "code": str(code),
        "children": "alive" if alive else "ended" if workers else "there was none",
        "left": ", ".join(left) or "nothing",
    }


def workers_of(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """The build workers that a process started."""
    found = []
    for entry in proc.glob("[0-9]*"):
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            command = (entry / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if int(parent) == pid and b"trtpack_runtime.worker" in command:
            found.append(int(entry.name))
    return sorted(found)


def _bundle(folder: Path, *, deferred: bool) -> Path:
    """A small model for this machine, built once: with its engine, or left to be built."""
    from tests.acceptance.packaging import livened, packaged
    from tests.acceptance.rows import ROWS

    path = folder / "engine.tar"
    if not path.exists():
        module, args = livened(next(row for row in ROWS if row.name == "resnet18/1"))
        packaged(module, args, path)
    if not deferred:
        return path
    left = folder / "deferred.tar"
    if not left.exists():
        _without_engines(path, left)
    return left


def _without_engines(path: Path, left: Path) -> None:
    from trtpack_runtime.bundle import open_bundle
    from trtpack_runtime.rewrite import rewrite

    bundle = open_bundle(path)
    variants = {
        name: replace(
            variant,
            engines={
                segment: replace(ref, member=None, record={}, deferred="left to the device")
                for segment, ref in variant.engines.items()
            },
        )
        for name, variant in bundle.manifest.variants.items()
    }
    engines = [member for place, member in bundle.manifest.references() if ".engines." in place]
    rewrite(bundle, left, manifest=replace(bundle.manifest, variants=variants), drop=engines)
