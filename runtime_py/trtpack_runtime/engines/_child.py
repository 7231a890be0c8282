# SPDX-License-Identifier: Apache-2.0
"""Builds an engine in a child process, so that TensorRT may crash, run out of memory or be stopped
without taking the caller with it. The child is ``trtpack_runtime.worker``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtpack_runtime import errors
from trtpack_runtime.atomic import cannot_write
from trtpack_runtime.errors import EngineBuildError, TrtpackError
from trtpack_runtime.network import Network

from ._build import BuildOptions

_GRACE_S = 5.0
_TAIL_LINES = 5


@dataclass(frozen=True)
class BuildJob:
    """What to build and where the plan goes.

    ``module`` is the TensorRT to import, ``weights`` the safetensors files of the weight store.
    ``verbose`` keeps TensorRT's VERBOSE lines in the result's log.
    """

    module: str
    network: Network
    weights: tuple[Path, ...]
    plan: Path
    options: BuildOptions
    name: str = "engine"
    verbose: bool = False


@dataclass(frozen=True)
class BuildResult:
    """A finished build. ``log`` are TensorRT's lines, each with its severity.

    ``peak_anonymous_bytes`` is the largest anonymous memory (RssAnon) the child was seen to have;
    None where the system does not tell.
    """

    plan: Path
    plan_bytes: int
    version: str
    seconds: float
    peak_anonymous_bytes: int | None
    log: tuple[str, ...]


def build_in_worker(
    job: BuildJob, on_progress: Callable[[Mapping[str, Any]], None] | None = None
) -> BuildResult:
    """Builds in a child process; the plan appears at ``job.plan`` whole or not at all.

    ``on_progress`` is told ``{"phase", "step", "steps"}`` as TensorRT goes. KeyboardInterrupt, like
    any other exception in the caller's thread, ends the child and leaves no file behind.

    Raises:
        EngineBuildError: TensorRT refused the network, or the child crashed or was killed.
        ConfigError: the disk refused.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{job.plan.name}.", dir=job.plan.parent))
    except OSError as error:
        raise cannot_write(job.plan, error) from error
    try:
        return _build_in(folder, job, on_progress)
    except OSError as error:
        raise cannot_write(job.plan, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _build_in(
    folder: Path, job: BuildJob, on_progress: Callable[[Mapping[str, Any]], None] | None
) -> BuildResult:
    (folder / "network.json").write_bytes(job.network.to_bytes())
    (folder / "job.json").write_text(json.dumps(_to_json(job)))
    with (folder / "stderr").open("wb") as stderr:
        status = _run(folder, stderr, on_progress)
    result = folder / "result.json"
    if not result.exists():
        raise _died(job.name, status, (folder / "stderr").read_bytes())
    answer = json.loads(result.read_bytes())
    if "error" in answer:
        raise _told(job.name, answer["error"])
    (folder / "plan").replace(job.plan)
    return BuildResult(
        job.plan,
        answer["plan_bytes"],
        answer["version"],
        answer["seconds"],
        answer["peak_anonymous_bytes"],
        tuple(answer["log"]),
    )


def _to_json(job: BuildJob) -> dict[str, Any]:
    return {
        "module": job.module,
        "weights": [str(path.resolve()) for path in job.weights],
        "options": job.options.to_json(),
        "verbose": job.verbose,
    }


def _run(folder: Path, stderr: Any, on_progress: Callable[[Mapping[str, Any]], None] | None) -> int:
    """Runs the child to its end and answers its exit status."""
    package = Path(__file__).resolve().parents[2]
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.Popen(
        [sys.executable, "-m", "trtpack_runtime.worker", "job.json"],
        cwd=folder,  # "-m" puts the working folder on the path: nothing foreign lies in this one
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.PIPE,  # the child ends when this end closes, however the parent ends
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if on_progress is not None:
                on_progress(json.loads(line))
        return child.wait()
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends a child that is still alive: asks, then kills."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def _died(name: str, status: int, stderr: bytes) -> EngineBuildError:
    """What a child without a result died of."""
    lines = stderr.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
    said = ": " + "; ".join(lines) if lines else ""
    if status == -signal.SIGKILL:
        return EngineBuildError(
            f"the TensorRT build of {name} was killed{said}",
            hint="free memory, or give the build a smaller workspace; it most likely ran out",
        )
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return EngineBuildError(
        f"the TensorRT build of {name} ended {how}{said}",
        hint="build again with --log-file and report the last lines",
    )


def _told(name: str, error: Mapping[str, Any]) -> TrtpackError:
    """The error a child reported, as the same class."""
    kind = getattr(errors, error["class"], EngineBuildError)
    if not issubclass(kind, TrtpackError):
        kind = EngineBuildError
    return kind(f"{name}: {error['message']}", hint=error["hint"])
