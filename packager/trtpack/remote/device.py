# SPDX-License-Identifier: Apache-2.0
"""A device while a connection to it lasts: asked, given files, asked for files."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from trtpack_runtime import errors
from trtpack_runtime.atomic import replaced
from trtpack_runtime.errors import DeviceError, EngineBuildError, InternalError, TrtpackError
from trtpack_runtime.remote.wire import ALIVE_S, CHUNK, SILENCE_S, Lost, Receiver, Sender

from ..runtime_wheel import runtime_members
from .address import Address
from .bootstrap import OLDEST_PYTHON, command, first_bytes
from .ssh import Ended, Ssh

_STARTS_S = 60.0
_GRACE_S = 10.0
_NOISE_BYTES = 1 << 20
"""What a login shell may say before our program does."""

OnReport = Callable[[Mapping[str, Any], bytes], None]
"""Told how far a task on the device is."""


class ConnectionLost(DeviceError):
    """The device, or what leads there, is gone."""


@dataclass(frozen=True)
class Hello:
    """What a device says first. ``clock_skew_s`` is how far its clock is ahead of this host's;
    ``swept`` are folders of processes that were killed, which it has removed."""

    facts: Mapping[str, Any]
    numpy: str | None
    clock_skew_s: float
    folder: str
    free_bytes: int
    swept: tuple[str, ...]


class Device:
    """A device one is logged in to; a ``with`` block. What ends it leaves nothing there.

    Args:
        ssh: how to get there.
        address: where.
        python: the Python to start there.

    Raises:
        ConfigError: no such host.
        DeviceError: it refuses the login, has no Python that is new enough, or no room.
    """

    def __init__(self, ssh: Ssh, address: Address, python: str = "python3") -> None:
        self.address = address
        self._ssh, self._python = ssh, python
        self._over = threading.Event()
        self._count = 0

    def __enter__(self) -> Device:
        self._process, self._said = self._ssh.start(command(self._python))
        try:
            self.hello = self._greeted()
        except BaseException:
            self._end()
            raise
        threading.Thread(target=self._keep_alive, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if kind is None or not issubclass(kind, ConnectionLost):
            with contextlib.suppress(Lost):
                self._sender.send({"do": "end"})
        self._end()

    def ask(self, task: str, on_report: OnReport | None = None, **values: Any) -> dict[str, Any]:
        """Has the device do something and answers what that gives.

        Raises:
            TrtpackError: what the device raised, as the same class.
            ConnectionLost: the connection ended before its answer.
        """
        with self._losing():
            number = self._asked(task, values)
            while True:
                message, data = self._message(number)
                if "result" in message:
                    result: dict[str, Any] = message["result"]
                    return result
                if on_report is not None:
                    on_report(message, data)

    def tell(self, task: str, **values: Any) -> None:
        """Has the device do something, whose answer nobody waits for; nothing where it is gone."""
        with contextlib.suppress(Lost):
            self._asked(task, values)

    @property
    def is_connected(self) -> bool:
        """Whether the connection lasts, as far as this host has noticed."""
        return self._process.poll() is None

    def put(self, source: Path | bytes, name: str, on_sent: Callable[[int, int], None]) -> None:
        """Gives the device a file; ``on_sent`` is told how many bytes of all are on their way."""
        digest, size = _digest_of(source)
        number = self._next()
        told = {"do": "put", "name": name, "sha256": digest, "id": number}

        def pieces() -> Iterator[bytes]:
            sent = 0
            for piece in _pieces(source):
                yield piece
                sent += len(piece)
                on_sent(sent, size)

        with self._losing():
            self._sender.stream(told, size, pieces())
            while "result" not in self._message(number)[0]:
                pass

    def get(self, name: str, path: Path) -> None:
        """Fetches a file; it appears whole or not at all.

        Raises:
            DeviceError: it arrived damaged.
            OSError: the disk here refused.
        """
        with self._losing():
            number = self._asked("get", {"name": name})
            digest = hashlib.sha256()
            with replaced(path) as file:
                message = self._next_message(number)
                for piece in self._receiver.pieces(message.get("bytes", 0)):
                    digest.update(piece)
                    file.write(piece)
                if digest.hexdigest() != message["file"]:
                    raise DeviceError(f"{name} arrived damaged from {self.address}")
            self._message(number)

    def _greeted(self) -> Hello:
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        mark = f"trtpack-{secrets.token_hex(8)}"
        self._sender = Sender(self._process.stdin)
        self._receiver = Receiver(self._process.stdout.fileno(), _STARTS_S)
        with contextlib.suppress(Lost):  # what it said before it closed tells more
            first = first_bytes(mark, self.address.folder, runtime_members())
            self._sender.raw(first)
        noise = ""
        try:
            while not (line := self._receiver.line()).startswith(f"{mark} ".encode()):
                noise += line.decode(errors="replace") + "\n"
                if len(noise) > _NOISE_BYTES:
                    raise Lost("it only says something else")
            self._check_start(line[len(mark) + 1 :])
            began = time.time()
            told = self._receiver.message()
        except Lost as lost:
            raise self._why_no_start(lost, noise) from lost
        self._receiver.silence_s = SILENCE_S
        skew = told["clock"] - (began + time.time()) / 2
        return Hello(
            told["facts"],
            told["numpy"],
            skew,
            told["folder"],
            told["free_bytes"],
            tuple(told["swept"]),
        )

    def _check_start(self, line: bytes) -> None:
        told = json.loads(line)
        if "python" in told:
            oldest = ".".join(map(str, OLDEST_PYTHON))
            raise DeviceError(
                f"{self.address} has Python {told['python']}, this needs {oldest} or newer",
                hint="install a newer one there, or name one with --remote-python",
            )
        if "refused" in told:
            raise DeviceError(
                f"cannot make a folder in {told['folder']} on {self.address}: "
                f"{told['refused'].lower()}",
                hint="free space there, or end the address with a folder on another disk: "
                f"ssh://{self.address}/folder",
            )

    def _why_no_start(self, lost: Lost, noise: str) -> TrtpackError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        said = self._said.read_text(errors="replace")
        if self._process.returncode is None:
            return ConnectionLost(f"{self.address} does not answer: {lost}", hint="try again")
        return self._ssh.why(Ended(self._process.returncode, said, noise))

    def _asked(self, task: str, values: Mapping[str, Any]) -> int:
        number = self._next()
        self._sender.send({"do": task, "id": number, **values})
        return number

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _message(self, number: int) -> tuple[dict[str, Any], bytes]:
        message = self._next_message(number)
        return message, self._receiver.all_of(message.get("bytes", 0))

    def _next_message(self, number: int) -> dict[str, Any]:
        while True:
            message = self._receiver.message()
            if "bug" in message:
                raise InternalError(f"on {self.address}: {message['bug']}")
            if message.get("id") == number:
                break
            self._receiver.all_of(message.get("bytes", 0))  # it says that it is there
        if "error" in message:
            raise self._told(message["error"])
        return message

    def _told(self, error: Mapping[str, Any]) -> TrtpackError:
        kind = getattr(errors, error["class"], DeviceError)
        if not issubclass(kind, TrtpackError):
            kind = DeviceError
        made: TrtpackError = kind(f"{self.address}: {error['message']}", hint=error["hint"])
        if isinstance(made, EngineBuildError):
            made.layers = tuple(error.get("layers", ()))
        return made

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except Lost as lost:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            lines = self._said.read_text(errors="replace").strip().splitlines()
            why = lines[-1] if lines else str(lost)
            raise ConnectionLost(
                f"the connection to {self.address} was lost: {why}",
                hint="run it again: what was built on it before is kept",
            ) from lost

    def _keep_alive(self) -> None:
        with contextlib.suppress(Lost):
            while not self._over.wait(ALIVE_S):
                self._sender.send({"do": "alive"})

    def _end(self) -> None:
        self._over.set()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def this_host() -> dict[str, Any]:
    """Who is at work, for others who want the device."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return {"holder": f"{user}@{socket.gethostname()} (process {os.getpid()})"}


def _pieces(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield from (source[i : i + CHUNK] for i in range(0, len(source), CHUNK))
        return
    with source.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece


def _digest_of(source: Path | bytes) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(source):
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size
