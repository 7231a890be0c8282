# SPDX-License-Identifier: Apache-2.0
"""What goes between host and device: a line of JSON, followed by as many bytes as it says.

Each end says something every few seconds, so that the other knows a dead connection from a long
build: a network that is gone closes nothing.
"""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Iterator, Mapping
from typing import IO, Any

ALIVE_S = 5.0
"""How often each end says that it is there."""

SILENCE_S = 60.0
"""After how much silence an end takes the other for gone."""

CHUNK = 1 << 20
_LONGEST_LINE = 64 << 20


class Lost(Exception):
    """The other end is gone."""


class Sender:
    """Writes messages; threads may share it."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink, self._lock = sink, threading.Lock()

    def send(self, message: Mapping[str, Any], data: bytes = b"") -> None:
        """One message, with ``bytes`` bytes behind it where there are some.

        Raises:
            Lost: nobody takes it.
        """
        told = {**message, "bytes": len(data)} if data else message
        with self._lock:
            self._write(json.dumps(told).encode() + b"\n" + data)

    def stream(self, message: Mapping[str, Any], nbytes: int, pieces: Iterator[bytes]) -> None:
        """One message with many bytes, piece by piece."""
        with self._lock:
            self._write(json.dumps({**message, "bytes": nbytes}).encode() + b"\n")
            for piece in pieces:
                self._write(piece)

    def raw(self, data: bytes) -> None:
        """Bytes that are no message."""
        with self._lock:
            self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            self._sink.write(data)
            self._sink.flush()
        except (OSError, ValueError) as error:
            raise Lost(str(error)) from error


class Receiver:
    """Reads messages of a pipe, whose other end has to say something every ``silence_s``."""

    def __init__(self, descriptor: int, silence_s: float) -> None:
        self.silence_s = silence_s
        self._descriptor, self._kept = descriptor, b""

    def line(self) -> bytes:
        """The next line, without its end.

        Raises:
            Lost: the pipe has ended, or nothing came for too long.
        """
        searched = 0
        while (end := self._kept.find(b"\n", searched)) < 0:
            searched = len(self._kept)
            if searched > _LONGEST_LINE:
                raise Lost("what came is no message")
            self._kept += self._read()
        line, self._kept = self._kept[:end], self._kept[end + 1 :]
        return line

    def message(self) -> dict[str, Any]:
        """The next message; where it has ``bytes``, ``pieces`` has to be read to the end next.

        Raises:
            Lost: as ``line``; or it is no message.
        """
        line = self.line()
        try:
            value = json.loads(line)
        except ValueError as error:
            raise Lost(f"what came is no message: {line[:80]!r}") from error
        if not isinstance(value, dict):
            raise Lost(f"what came is no message: {line[:80]!r}")
        return value

    def pieces(self, nbytes: int) -> Iterator[bytes]:
        """The bytes behind a message."""
        left = nbytes
        while left:
            if not self._kept:
                self._kept = self._read()
            piece, self._kept = self._kept[:left], self._kept[left:]
            left -= len(piece)
            yield piece

    def all_of(self, nbytes: int) -> bytes:
        """The same in one."""
        return b"".join(self.pieces(nbytes))

    def _read(self) -> bytes:
        try:
            ready, _, _ = select.select([self._descriptor], [], [], self.silence_s)
            if not ready:
                raise Lost(f"nothing came for {self.silence_s:.0f} s")
            data = os.read(self._descriptor, CHUNK)
        except (OSError, ValueError) as error:
            raise Lost(str(error)) from error
        if not data:
            raise Lost("it was closed")
        return data
