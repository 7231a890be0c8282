# SPDX-License-Identifier: Apache-2.0
"""The child processes that work for this one, and those that wait for their work.

TensorRT takes seconds to come up, release 8 some ten on a large GPU. A caller that knows early that
there will be something to build has a child come up meanwhile, with ``start_early``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trtpack_runtime
from trtpack_runtime.gpus import visible

_GRACE_S = 5.0
_PACKAGE = Path(trtpack_runtime.__file__).resolve().parents[1]
RUNNING: set[subprocess.Popen[Any]] = set()
"""The children that work for this process, or wait; of ``_inductor_build.py`` too."""


TELLING = ("-X", "faulthandler")
"""Arguments of Python with which a child that crashes says where."""


@dataclass(frozen=True)
class _Early:
    """A child that waits for its job, and what it was told of where TensorRT and the GPU are."""

    child: subprocess.Popen[bytes]
    places: Mapping[str, str]


_EARLY: dict[tuple[str, int], _Early] = {}
_LOCK = threading.Lock()


def start_early(module: str, gpu: int = 0) -> None:
    """Starts the child of the next build with this TensorRT on this GPU; one at a time.

    It holds what TensorRT takes to come up until it is given work or ``give_up_early``.
    """
    with _LOCK:
        if (module, gpu) not in _EARLY:
            places = _places(gpu)
            child = worker(["--wait", module], _PACKAGE, subprocess.DEVNULL, gpu)
            _EARLY[module, gpu] = _Early(child, places)


def early_child(module: str, gpu: int, job: Path) -> subprocess.Popen[bytes] | None:
    """The child that was started early, at work on the job now; None where there is none."""
    with _LOCK:
        early = _EARLY.pop((module, gpu), None)
    if early is None:
        return None
    child = early.child
    try:
        if early.places == _places(gpu) and child.stdin is not None:
            child.stdin.write(os.fsencode(job.resolve()) + b"\n")
            child.stdin.flush()
            return child
    except OSError:  # it died before it got work, and the next one will say of what
        pass
    end(child)
    return None


def give_up_early() -> None:
    """Ends the children that still wait for work."""
    with _LOCK:
        waiting = [early.child for early in _EARLY.values()]
        _EARLY.clear()
    for child in waiting:
        child.kill()  # it has nothing to lose
        end(child)


def worker(
    arguments: Sequence[str], folder: Path, stderr: Any, gpu: int
) -> subprocess.Popen[bytes]:
    """Starts ``trtpack_runtime.worker`` in a folder."""
    child = subprocess.Popen(
        [sys.executable, *TELLING, "-m", "trtpack_runtime.worker", *arguments],
        cwd=folder,
        env=_environment(gpu),
        stdin=subprocess.PIPE,  # the child ends when this end closes, however the parent ends
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )
    RUNNING.add(child)
    return child


def _environment(gpu: int) -> dict[str, str]:
    """The child's environment: this one, with the runtime on the path and one GPU to see."""
    paths = [str(_PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
    chosen = {} if gpu == 0 else {"CUDA_VISIBLE_DEVICES": visible(gpu)}
    return {
        "CUDA_MODULE_LOADING": "LAZY",  # TensorRT asks for it: less memory, an earlier start
        **os.environ,
        **chosen,
        "PYTHONPATH": os.pathsep.join(paths),
    }


def _places(gpu: int) -> dict[str, str]:
    """What of a child's environment says which TensorRT and which GPU it finds."""
    told = ("PYTHON", "LD_", "CUDA_")
    return {name: value for name, value in _environment(gpu).items() if name.startswith(told)}


def last_words(lines: Sequence[str], most: int) -> list[str]:
    """What a child printed last; of one that crashed, what it was at, and what came before."""
    told = [line.rstrip() for line in lines if line.strip(" ^~")]
    crashed = [i for i, line in enumerate(told) if line.startswith("Fatal Python error")]
    return told[max(0, crashed[0] - 2) :][:most] if crashed else told[-most:]


def end_children() -> None:
    """Asks every child to end; who waits for it in another thread is told so."""
    for child in tuple(RUNNING):
        child.terminate()


def kill_children() -> None:
    """Ends every child at once and waits until it is gone."""
    for child in tuple(RUNNING):
        child.kill()
        child.wait()


def end(child: subprocess.Popen[bytes]) -> None:
    """Ends a child that is still alive: asks, then kills."""
    RUNNING.discard(child)
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):  # what it was told, and did not read
                pipe.close()
