# SPDX-License-Identifier: Apache-2.0
"""A log of trials: one JSON object a line, each safe on the disk before the next trial begins.

A process that dies, even by SIGKILL, leaves every finished line; one that was being written is
dropped when the log is opened again. The first line says what the trials are of, so a log is not
taken up for something else.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import ConfigError

SCHEMA = "trtpack.trials/1"


class TrialLog:
    """The lines of an open log, oldest first, and the file that takes more; see ``open_log``."""

    def __init__(self, path: Path, file: IO[bytes], lines: list[dict[str, Any]]) -> None:
        self.path, self._file, self.lines = path, file, lines

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds a line; it is on the disk when this returns."""
        self._file.write(json.dumps(line, sort_keys=True).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.lines.append(dict(line))


@contextmanager
def open_log(path: Path, of: Mapping[str, str]) -> Iterator[TrialLog]:
    """Opens a log, or begins one; nobody else has it as long as the block runs.

    Args:
        path: the file.
        of: what its trials are of, as digests or names: all that a trial's result depends on.

    Raises:
        ConfigError: it is the log of something else, is no log, is damaged or in use.
    """
    try:
        file = path.open("a+b")
    except OSError as error:
        raise ConfigError(
            f"cannot open {path}: {error.strerror}", hint="choose another --output"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"{path} is in use by another process", hint="wait for it, or end it"
            ) from error
        file.seek(0)
        content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        lines = _read(path, whole)
        if lines:
            _check(path, lines[0], of)
        file.truncate(len(whole))
        log = TrialLog(path, file, lines[1:])
        if not lines:
            log.append({"schema": SCHEMA, "of": dict(of)})
            log.lines.clear()
        yield log


def check_log(path: Path, of: Mapping[str, str]) -> None:
    """Refuses a log of something else as far as ``of`` tells, before there is more to tell.

    Raises:
        ConfigError: it is the log of something else, is no log or is damaged.
    """
    try:
        with path.open("rb") as file:
            line = file.readline()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", hint="choose another --output"
        ) from error
    head = _read(path, line) if line.endswith(b"\n") else []
    if head:
        had = head[0].get("of")
        _check(path, head[0], {**(had if isinstance(had, dict) else {}), **of})


def _read(path: Path, content: bytes) -> list[dict[str, Any]]:
    lines = []
    for number, text in enumerate(content.splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise ConfigError(f"{path} is damaged at line {number}", hint="remove it to begin anew")
        lines.append(line)
    return lines


def _check(path: Path, head: Mapping[str, Any], of: Mapping[str, str]) -> None:
    had = head.get("of")
    if head.get("schema") != SCHEMA or not isinstance(had, dict):
        raise ConfigError(f"{path} is no log of trials", hint="choose another --output")
    other = [name for name in sorted({*of, *had}) if of.get(name) != had.get(name)]
    if other:
        raise ConfigError(
            f"{path} tells of trials that differ in {' and '.join(other)}",
            hint="remove it to begin anew, or choose another --output",
        )
