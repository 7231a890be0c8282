# SPDX-License-Identifier: Apache-2.0
"""Works with TensorRT in a child process, so that it may crash, run out of memory or be stopped
without taking the caller with it. The child is ``trtpack_runtime.worker``.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtpack_runtime import errors, mapping
from trtpack_runtime.atomic import cannot_write
from trtpack_runtime.errors import BuildCancelled, BuildKilled, EngineBuildError, TrtpackError
from trtpack_runtime.network import Network

from ._build import PLAN, TACTICS_IN, TACTICS_OUT, BuildOptions
from ._processes import early_child, end, last_words, worker

_TAIL_LINES = 6
_WORK = {"build": "the TensorRT build"}

OnProgress = Callable[[Mapping[str, Any]], None]
"""Told what a child reports, such as ``{"phase", "step", "steps"}``."""


@dataclass(frozen=True)
class BuildJob:
    """What to build and where the plan goes.

    ``module`` is the TensorRT to import, ``weights`` the safetensors files of the weight store, or
    the parts of a bundle that are such files.
    ``tactics`` is a serialised timing cache to begin with. ``memory_bytes`` is what the GPU has in
    all; a network that surely needs more is refused before the build. ``integrated`` says that the
    GPU shares the host's memory. ``gpu`` is which of the visible ones builds.
    ``verbose`` keeps TensorRT's VERBOSE lines in the result's log.
    """

    module: str
    network: Network
    weights: tuple[Path | mapping.FilePart, ...]
    plan: Path
    options: BuildOptions
    name: str = "engine"
    verbose: bool = False
    tactics: bytes | None = None
    memory_bytes: int | None = None
    integrated: bool = False
    gpu: int = 0


@dataclass(frozen=True)
class BuildResult:
    """A finished build. ``log`` are TensorRT's lines, each with its severity.

    ``peak_anonymous_bytes`` is the largest anonymous memory (RssAnon) the child was seen to have;
    None where the system does not tell. ``tactics`` is the timing cache after the build, None where
    this TensorRT has none; ``entries`` are what it holds, None where that cannot be read.
    ``refused_tactics`` says what is wrong with the timing cache that was given, where TensorRT did
    not take it; ``gpu`` is what ``gpu_watch.GpuWatch`` saw.
    """

    plan: Path
    plan_bytes: int
    version: str
    seconds: float
    peak_anonymous_bytes: int | None
    log: tuple[str, ...]
    tactics: bytes | None = None
    entries: tuple[Mapping[str, Any], ...] | None = None
    refused_tactics: str | None = None
    gpu: Mapping[str, int] = field(default_factory=dict)


def build_in_worker(job: BuildJob, on_progress: OnProgress | None = None) -> BuildResult:
    """Builds in a child process; the plan appears at ``job.plan`` whole or not at all.

    ``on_progress`` is told ``{"phase", "step", "steps"}`` as TensorRT goes. KeyboardInterrupt, like
    any other exception in the caller's thread, ends the child and leaves no file behind.

    Raises:
        EngineBuildError: TensorRT refused the network, or the child crashed or was killed;
            BuildCancelled where it was stopped.
        DeviceError: there is no such TensorRT, or the machine's GPU cannot serve it.
        ConfigError: the disk refused.
    """
    given: dict[str, Path | bytes] = {"network.json": job.network.to_bytes()}
    if job.tactics is not None:
        given[TACTICS_IN] = job.tactics
    with _folder_beside(job.plan) as folder:
        told = _to_json(job)
        answer = _asked(folder, "build", told, job.name, given, on_progress, job.gpu)
        kept = folder / TACTICS_OUT
        tactics = kept.read_bytes() if kept.exists() else None
        (folder / PLAN).replace(job.plan)
    entries = answer.get("entries")
    return BuildResult(
        job.plan,
        answer["plan_bytes"],
        answer["version"],
        answer["seconds"],
        answer["peak_anonymous_bytes"],
        tuple(answer["log"]),
        tactics,
        None if entries is None else tuple(entries),
        answer["refused_tactics"],
        answer["gpu"],
    )


def ask(
    module: str,
    task: str,
    job: Mapping[str, Any],
    *,
    name: str,
    inputs: Mapping[str, Path | bytes] | None = None,
    outputs: Mapping[str, Path] | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Has a child process do one of the worker's ``TASKS`` and answers its result.

    The result has the task's own values and ``version``, ``seconds``, ``log`` and
    ``peak_anonymous_bytes``.

    Args:
        module: the TensorRT module to import.
        task: a key of ``worker.TASKS``.
        job: plain JSON values for the task.
        name: what errors call the thing worked on.
        inputs: files or their contents, which the task finds in its folder under these names.
        outputs: files the task leaves in its folder, by name, and where they go.
        on_progress: told what the task reports.

    Raises:
        EngineBuildError: TensorRT refused, or the child crashed or was killed.
        DeviceError: there is no such TensorRT, or the machine's GPU cannot serve it.
        ConfigError: the disk refused.
    """
    wanted = dict(outputs or {})
    with _folder_beside(next(iter(wanted.values()), None)) as folder:
        job = {**job, "module": module}
        answer = _asked(folder, task, job, name, inputs or {}, on_progress)
        for key, path in wanted.items():
            shutil.move(folder / key, path)
    return answer


@contextmanager
def _folder_beside(path: Path | None) -> Iterator[Path]:
    """A folder for one child, on the disk of ``path``, so that a file moves there at once."""
    at = Path(tempfile.gettempdir()) / "trtpack" if path is None else path
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{at.name}.", dir=at.parent))
    except OSError as error:
        raise cannot_write(at, error) from error
    try:
        yield folder
    except OSError as error:
        raise cannot_write(at, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _asked(
    folder: Path,
    task: str,
    job: Mapping[str, Any],
    name: str,
    inputs: Mapping[str, Path | bytes],
    on_progress: OnProgress | None,
    gpu: int = 0,
) -> dict[str, Any]:
    for key, content in inputs.items():
        if isinstance(content, Path):
            (folder / key).symlink_to(content.resolve())
        else:
            (folder / key).write_bytes(content)
    (folder / "job.json").write_text(json.dumps({**job, "task": task}))
    with (folder / "stderr").open("wb") as stderr:
        early = early_child(job["module"], gpu, folder / "job.json") if task == "build" else None
        # "-m" puts the working folder on the path: nothing foreign lies in this one
        child = early or worker(["job.json"], folder, stderr, gpu)
        status = _ended(child, on_progress)
    result = folder / "result.json"
    if not result.exists():
        raise _died(f"{_WORK.get(task, task)} of {name}", status, (folder / "stderr").read_bytes())
    answer: dict[str, Any] = json.loads(result.read_bytes())
    if "error" in answer:
        raise _told(name, answer["error"])
    return answer


def _to_json(job: BuildJob) -> dict[str, Any]:
    return {
        "module": job.module,
        "weights": [mapping.to_json(place) for place in job.weights],
        "options": job.options.to_json(),
        "verbose": job.verbose,
        "memory_bytes": job.memory_bytes,
        "integrated": job.integrated,
    }


def _ended(child: subprocess.Popen[bytes], on_progress: OnProgress | None) -> int:
    """The exit status of a child, which runs to its end."""
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if on_progress is not None:
                on_progress(json.loads(line))
        return child.wait()
    finally:
        end(child)


def _died(work: str, status: int, stderr: bytes) -> EngineBuildError:
    """What a child without a result died of."""
    lines = last_words(stderr.decode(errors="replace").splitlines(), _TAIL_LINES)
    said = ": " + "; ".join(map(str.strip, lines)) if lines else ""
    if -status in (signal.SIGINT, signal.SIGTERM):
        return BuildCancelled(f"{work} was stopped", hint="start it again")
    if status == -signal.SIGKILL:
        return BuildKilled(
            f"{work} was killed{said}",
            hint="free memory, or give the build a smaller workspace; it most likely ran out",
        )
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return EngineBuildError(
        f"{work} ended {how}{said}", hint="build again with --log-file and report the last lines"
    )


def _told(name: str, error: Mapping[str, Any]) -> TrtpackError:
    """The error a child reported, as the same class."""
    kind = getattr(errors, error["class"], EngineBuildError)
    if not issubclass(kind, TrtpackError):
        kind = EngineBuildError
    told: TrtpackError = kind(f"{name}: {error['message']}", hint=error["hint"])
    if isinstance(told, EngineBuildError):
        told.layers = tuple(error.get("layers", ()))
    return told
