# SPDX-License-Identifier: Apache-2.0
"""The child process that builds one engine: ``python -m trtpack_runtime.worker JOB.json``.

Needs only the standard library and TensorRT. Beside the job lies ``network.json``; the weights are
mapped and handed to TensorRT by address. Progress goes to standard output, one JSON object a line;
``plan`` and ``result.json`` appear beside the job when the build is over. SIGINT and SIGTERM cancel
the build at TensorRT's next step; the end of standard input, which is the end of the parent, at
once.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from . import network as networks
from .atomic import cannot_write, replaced
from .engines._build import BuildOptions, write_plan
from .engines._log import log_of
from .errors import DeviceError, EngineBuildError, TrtpackError
from .safetensors import open_safetensors

_POLL_S = 0.02
_PROGRESS_S = 0.05


def main(arguments: list[str]) -> int:
    """Runs one job; 0 where a plan was written, 1 where ``result.json`` says why not."""
    path = Path(arguments[0])
    lines = _own_stdout()
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()
    memory = _Memory()
    job = json.loads(path.read_bytes())
    try:
        result = _build(job, path.parent, lines)
        result["peak_anonymous_bytes"] = memory.peak()
    except TrtpackError as error:
        kind = type(error).__name__
        result = {"error": {"class": kind, "message": str(error), "hint": error.hint}}
    with replaced(path.parent / "result.json") as file:
        file.write(json.dumps(result).encode())
    return 1 if "error" in result else 0


def _build(job: Mapping[str, Any], folder: Path, lines: BinaryIO) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        trt = importlib.import_module(job["module"])
    except ImportError as error:
        raise DeviceError(
            f"cannot import {job['module']}: {error}", hint="install TensorRT on this machine"
        ) from error
    log = log_of(trt)
    log.verbose = job["verbose"]
    network = networks.from_bytes((folder / "network.json").read_bytes())
    weights = {
        name: view for file in job["weights"] for name, view in open_safetensors(Path(file)).items()
    }
    cancelled = _cancelled_by_signal()
    report = _reporter(lines, cancelled)
    options = BuildOptions.from_json(job["options"])
    try:
        with replaced(folder / "plan") as file:
            size = write_plan(trt, network, weights, options, file, report)
    except EngineBuildError as error:
        if cancelled():
            raise EngineBuildError("the build was cancelled", hint="start it again") from error
        raise
    except OSError as error:
        raise cannot_write(folder / "plan", error) from error
    return {
        "plan_bytes": size,
        "version": trt.__version__,
        "seconds": time.perf_counter() - start,
        "log": [f"{message.severity}: {message.text}" for message in log.messages],
    }


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
        edge = event["step"] in (0, event["steps"])
        if edge or now - last.get(event["phase"], 0.0) >= _PROGRESS_S:
            last[event["phase"]] = now
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


def _leave_with_the_parent() -> None:
    while os.read(0, 4096):
        pass
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
    sys.exit(main(sys.argv[1:]))
