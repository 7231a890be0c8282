# SPDX-License-Identifier: Apache-2.0
"""One host at a time: who measures on a device while another does measures the other's work.

The lease is a file that its holder has locked. The system gives the lock back when the holder's
process ends, however it ends; a file that nobody has locked is what a dead holder left, and the
next one takes it. It says who holds it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..durations import about
from ..errors import DeviceError

FOLDER_VARIABLE = "TRTPACK_LEASE_FOLDER"
"""On a device where ``/tmp`` is not the same for all users: a folder that is."""

FILE = "trtpack-device.lease"
_EVERY_S = 0.2
_LONGEST = 120

OnWait = Callable[[Mapping[str, Any]], bool]
"""Told every moment who holds the lease; whether to go on waiting."""


class GivenUp(Exception):
    """Nobody waits any more."""


class Lease:
    """The lease of this device, held until ``release``."""

    def __init__(self, path: Path, descriptor: int, left: Mapping[str, Any] | None) -> None:
        self._path, self._descriptor = path, descriptor
        self.left_behind = left
        """Who had it before and died without giving it back."""

    def release(self) -> None:
        """Gives it back."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)  # the file of another user cannot be removed
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)


def default_path() -> Path:
    """Where it is: the same for all users of a device."""
    return Path(os.environ.get(FOLDER_VARIABLE) or "/tmp") / FILE


def take(
    who: Mapping[str, Any], timeout_s: float, on_wait: OnWait, path: Path | None = None
) -> Lease:
    """Takes the lease, once nobody else holds it.

    Args:
        who: what the file says of the holder: ``holder``, ``task``.
        timeout_s: how long to wait.
        on_wait: told ``{"holder", "task", "for_s"}`` of whoever holds it; False gives up.
        path: the file.

    Raises:
        DeviceError: another held it for all that time, or the file cannot be had.
        GivenUp: ``on_wait`` said so.
    """
    path = path or default_path()
    began = time.monotonic()
    while True:
        descriptor = _opened(path)
        if descriptor is None:
            continue  # it was given back in that moment
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(descriptor)
            os.close(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise _refused(path, error) from error
        else:
            if _is_at(path, descriptor):
                left = _read(descriptor)
                _write(descriptor, {**who, "pid": os.getpid(), "since": time.time()})
                return Lease(path, descriptor, left or None)
            os.close(descriptor)
            continue
        name, since = _text(holder.get("holder")) or "another host", holder.get("since")
        held_s = max(time.time() - since, 0.0) if isinstance(since, float) else 0.0
        if not on_wait({"holder": name, "task": _text(holder.get("task")), "for_s": held_s}):
            raise GivenUp
        if time.monotonic() - began >= timeout_s:
            raise DeviceError(
                f"{name} has held this device for {about(held_s)}",
                hint="wait until it is done, or give --lease-timeout more seconds",
            )
        time.sleep(_EVERY_S)


def _opened(path: Path) -> int | None:
    """The file, made where there is none; None where it comes and goes just now."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refused(path, error) from error
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    except OSError as error:
        raise _refused(path, error) from error
    with suppress(OSError):
        os.fchmod(descriptor, 0o666)  # other users have to lock it too
    return descriptor


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the file that was locked is still the one of that name."""
    try:
        there, mine = path.stat(), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _read(descriptor: int) -> dict[str, Any]:
    try:
        value = json.loads(os.pread(descriptor, 65536, 0) or b"{}")
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """What a file says that anybody may write, as it can be shown on a terminal."""
    text = value if isinstance(value, str) else ""
    return "".join(c for c in text if c.isprintable())[:_LONGEST]


def _write(descriptor: int, value: Mapping[str, Any]) -> None:
    with suppress(OSError):  # a full disk: it is the lock that counts
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(value).encode() + b"\n", 0)


def _refused(path: Path, error: OSError) -> DeviceError:
    reason = (error.strerror or errno.errorcode.get(error.errno or 0, "unknown")).lower()
    return DeviceError(
        f"cannot take the lease of this device, {path}: {reason}",
        hint=f"set {FOLDER_VARIABLE} there to a folder that every user may write",
    )
