# SPDX-License-Identifier: Apache-2.0
"""Builds cells on this host, each in a process of its own, several at once.

The processes are forked from one that has imported PyTorch: a cell begins at once, and what it does
to the interpreter (converters it registers, a model's own settings) ends with it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ..options import Options
from . import cell_process

_GRACE_S = 10.0


@dataclass(frozen=True)
class Request:
    """A cell to build: the MODEL argument, how, and where the process writes what it prints."""

    cell: str
    model: str
    options: Options
    log: Path


@dataclass(frozen=True)
class Said:
    """What a process told: ``{"text"}``, ``{"report"}``, ``{"error"}``, or ``{"died"}``, how."""

    cell: str
    told: Mapping[str, Any]


@dataclass(frozen=True)
class _Child:
    process: BaseProcess
    connection: Connection


class Crew:
    """At most ``size`` processes; in a ``with`` block, so that none outlives it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._children: dict[str, _Child] = {}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["trtpack.pipeline", cell_process.__name__])

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        for child in self._children.values():
            child.connection.close()  # it ends itself, and what it wrote
        until = time.monotonic() + _GRACE_S
        for child in self._children.values():
            child.process.join(max(0.1, until - time.monotonic()))
            if child.process.is_alive():
                child.process.kill()
                child.process.join()

    @property
    def is_free(self) -> bool:
        """Whether one more process may start."""
        return len(self._children) < self._size

    def start(self, request: Request) -> None:
        """Starts building a cell."""
        ours, theirs = self._context.Pipe()
        threads = max(1, len(os.sched_getaffinity(0)) // self._size)
        process = self._context.Process(
            target=cell_process.run,
            args=(theirs, request.model, request.options, request.log, threads, dict(os.environ)),
            name=f"trtpack {request.cell}",
        )
        process.start()
        theirs.close()
        self._children[request.cell] = _Child(process, ours)

    def said(self, timeout_s: float) -> Iterator[Said]:
        """What the processes tell, for as long as that; one that ended is free again."""
        by_connection = {child.connection: cell for cell, child in self._children.items()}
        if not by_connection:
            time.sleep(timeout_s)
            return
        for connection in wait(list(by_connection), timeout_s):
            assert isinstance(connection, Connection)
            cell = by_connection[connection]
            try:
                told = json.loads(connection.recv_bytes())
            except (EOFError, OSError):
                told = {"died": self._ended(cell)}
            else:
                if "text" not in told:
                    self._ended(cell)
            yield Said(cell, told)

    def _ended(self, cell: str) -> str:
        """How a process ended, as a clause."""
        child = self._children.pop(cell)
        child.connection.close()
        child.process.join(_GRACE_S)
        if child.process.is_alive():
            child.process.kill()
            child.process.join()
        status = child.process.exitcode or 0
        return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
