# SPDX-License-Identifier: Apache-2.0
"""The process that builds one cell: tells what it is at and what became of it, as JSON."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trtpack_runtime.errors import TrtpackError

from ..options import Options
from ..report import Progress, Step

_EVERY_S = 0.2


def run(
    connection: Connection,
    model: str,
    options: Options,
    log: Path,
    threads: int,
    environment: Mapping[str, str],
) -> None:
    """Builds, and answers ``{"report"}`` or ``{"error"}`` over ``connection``; ``{"text"}`` before.

    Ends where the other end of ``connection`` is closed. What is printed goes to ``log``.
    """
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # as in a build that is not one of many
    _redirect(log)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    try:
        answer = _answer(connection, model, options, threads)
    except KeyboardInterrupt:
        os._exit(130)
    sys.stdout.flush()
    _send(connection, answer)


def _answer(connection: Connection, model: str, options: Options, threads: int) -> dict[str, Any]:
    try:
        import torch

        from ..pipeline import build

        torch.set_num_threads(threads)
        return {"report": build(model, options, _Telling(connection)).to_json()}
    except TrtpackError as error:
        traceback.print_exc()
        return {"error": _plain(type(error).__name__, error.message, error.hint)}
    except Exception as error:
        traceback.print_exc()
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return {"error": _plain("InternalError", told, "report it with the log of this cell")}


def _plain(kind: str, message: str, hint: str) -> dict[str, str]:
    return {"class": kind, "message": message, "hint": hint}


class _Telling(Progress):
    """Sends what a build is at, not more often than anybody can read."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection, self._last = connection, 0.0

    def began(self, step: Step) -> None:
        _send(self._connection, {"text": step.name})

    def changed(self, step: Step) -> None:
        if time.monotonic() - self._last > _EVERY_S:
            self._last = time.monotonic()
            _send(self._connection, {"text": f"{step.name}: {step.text}"})


def _send(connection: Connection, told: Mapping[str, Any]) -> None:
    try:
        connection.send_bytes(json.dumps(told).encode())
    except OSError:
        raise KeyboardInterrupt from None  # nobody listens any more


def _end_with(connection: Connection) -> None:
    try:
        connection.recv_bytes()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGINT)


def _redirect(log: Path) -> None:
    """Gives ``log`` all that is printed, by libraries in C++ too, and trtpack's messages."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("trtpack", "trtpack_runtime", "py.warnings"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        logger.propagate = False
    logging.captureWarnings(True)
