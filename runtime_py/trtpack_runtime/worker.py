# SPDX-License-Identifier: Apache-2.0
"""The child process that works with TensorRT: ``python -m trtpack_runtime.worker JOB.json``, or
``--wait MODULE``, which has that TensorRT come up and then reads the job's path from its input.

Needs only the standard library and TensorRT (release 8 takes its weights as numpy arrays). The job
names a TensorRT module and one of ``TASKS``; its files lie beside it, and there the task leaves its
own and ``result.json``. Progress goes to standard output, one JSON object a line. SIGINT and
SIGTERM cancel a task at TensorRT's next step, at once where this TensorRT tells no steps; the end
of standard input, which is the end of the parent, at once.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from .atomic import replaced
from .engines._cuda import start_builder
from .engines._find import imported
from .engines._log import log_of
from .errors import BuildCancelled, TrtpackError
from .gpu_watch import GpuWatch

TASKS: Mapping[str, tuple[str, str]] = {
    "build": ("_build", "run"),
    "tactics": ("_tactics", "run"),
    "inspect": ("_inspect", "run"),
}
"""Task -> the module of ``trtpack_runtime.engines`` and its function
``run(trt, job, folder, report)``, which answers plain JSON values; ``report`` takes progress events
and answers whether the task goes on."""

_POLL_S = 0.02
_PROGRESS_S = 0.05


def main(arguments: list[str]) -> int:
    """Runs one job; 0 where it is done, 1 where ``result.json`` says why not."""
    lines = _own_stdout()
    parent, gpu = _Parent(), None
    if arguments[0] == "--wait":
        gpu = GpuWatch()
        path = _early(arguments[1], parent)
    else:
        path = Path(arguments[0])
    memory = _Memory()
    job = json.loads(path.read_bytes())
    if gpu is None and job["task"] == "build":
        gpu = GpuWatch()
    try:
        result = _run(job, path.parent, lines, gpu)
        result["peak_anonymous_bytes"] = memory.peak()
    except TrtpackError as error:
        told = {"class": type(error).__name__, "message": str(error), "hint": error.hint}
        result = {"error": told | {"layers": list(getattr(error, "layers", ()))}}
    with replaced(path.parent / "result.json") as file:
        file.write(json.dumps(result).encode())
    return 1 if "error" in result else 0


def _run(
    job: Mapping[str, Any], folder: Path, lines: BinaryIO, gpu: GpuWatch | None
) -> dict[str, Any]:
    start = time.perf_counter()
    module, function = TASKS[job["task"]]
    trt = imported(job["module"])
    log = log_of(trt)
    log.verbose, log.errors_to = job.get("verbose", False), sys.stderr
    faulthandler.enable(all_threads=False)  # the threads of this worker never crash
    cancelled = _cancelled_by_signal() if hasattr(trt, "IProgressMonitor") else lambda: False
    run = getattr(import_module(f"{__package__}.engines.{module}"), function)
    try:
        result: dict[str, Any] = run(trt, job, folder, _reporter(lines, cancelled))
    except TrtpackError as error:
        if cancelled():
            raise _cancellation() from error
        raise
    if cancelled():  # after TensorRT's last step
        raise _cancellation()
    return result | {
        "gpu": {} if gpu is None else gpu.seen(),
        "version": trt.__version__,
        "seconds": time.perf_counter() - start,
        "log": [f"{message.severity}: {message.text}" for message in log.messages],
    }


def _cancellation() -> BuildCancelled:
    return BuildCancelled("the build was cancelled", hint="start it again")


def _own_stdout() -> BinaryIO:
    """Standard output for progress alone: what TensorRT prints goes to standard error."""
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return lines


def _reporter(
    lines: BinaryIO, cancelled: Callable[[], bool]
) -> Callable[[Mapping[str, Any]], bool]:
    """Writes progress, not more often than a person could follow; False once cancelled."""
    last: dict[str, float] = {}

    def report(event: Mapping[str, Any]) -> bool:
        now = time.monotonic()
        phase = event.get("phase", "")
        edge = event.get("step") in (None, 0, event.get("steps"))
        if edge or now - last.get(phase, 0.0) >= _PROGRESS_S:
            last[phase] = now
            lines.write(json.dumps(event).encode() + b"\n")
        return not cancelled()

    return report


def _cancelled_by_signal() -> Callable[[], bool]:
    """Whether SIGINT or SIGTERM has come. A second one ends the process at once."""
    seen = threading.Event()

    def cancel(number: int, _frame: object) -> None:
        if seen.is_set():
            os._exit(128 + number)
        seen.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, cancel)
    return seen.is_set


def _early(module: str, parent: _Parent) -> Path:
    """Has TensorRT come up, then waits for a job; the job's folder becomes the working folder."""
    with suppress(TrtpackError):  # which the job will meet again, and tell
        start_builder(imported(module))
    path = parent.job()
    os.chdir(path.parent)
    stderr = os.open("stderr", os.O_WRONLY | os.O_APPEND)
    os.dup2(stderr, 2)
    os.dup2(stderr, 1)
    os.close(stderr)
    return path


class _Parent:
    """Standard input, which the parent holds: this process ends with it."""

    def __init__(self) -> None:
        self._read, self._told = b"", threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def job(self) -> Path:
        """The path that the parent writes, once it does."""
        self._told.wait()
        return Path(os.fsdecode(self._read.splitlines()[0]))

    def _listen(self) -> None:
        while read := os.read(0, 4096):
            self._read += read
            if b"\n" in read:
                self._told.set()
        os._exit(1)


class _Memory:
    """The largest anonymous memory seen, read by a thread while TensorRT works."""

    def __init__(self) -> None:
        self._peak: int | None = None
        threading.Thread(target=self._watch, daemon=True).start()

    def peak(self) -> int | None:
        """Bytes; None where the system does not tell."""
        return self._peak

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.exists():
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self._peak = max(self._peak or 0, int(line.split()[1]) * 1024)
            time.sleep(_POLL_S)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # everything is written, and TensorRT takes its time to take itself apart
