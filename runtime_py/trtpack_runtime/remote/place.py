# SPDX-License-Identifier: Apache-2.0
"""The folder on the device in which everything happens, and its removal."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

PREFIX = "trtpack-remote-"
"""What the folders' names begin with; the bootstrap makes them and has them locked."""

_SETTLED_S = 10.0
"""A folder that nobody has locked is older than this once nobody works in it."""


class Place:
    """The folder ``root`` of this process, which has it locked."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def environment(self) -> dict[str, str]:
        """Variables by which all that is written, by children too, is written below the folder."""
        names = {
            "XDG_CACHE_HOME": "cache",
            "XDG_DATA_HOME": "data",
            "TMPDIR": "tmp",
            "CUDA_CACHE_PATH": "cuda",
            "TRITON_CACHE_DIR": "triton",
            "TORCHINDUCTOR_CACHE_DIR": "inductor",
        }
        return {variable: str(self.root / name) for variable, name in names.items()}

    def path(self, name: str) -> Path:
        """The place of a file.

        Raises:
            ValueError: the name leads elsewhere.
        """
        path = self.root / name
        if name in ("", ".", "..") or Path(name).name != name:
            raise ValueError(f"{name!r} is no file's name")
        return path

    def free_bytes(self) -> int:
        """What the disk has left."""
        return shutil.disk_usage(self.root).free

    def remove(self) -> None:
        """Removes it with all that is in it; what a dying child still writes too."""
        for _ in range(20):
            shutil.rmtree(self.root, ignore_errors=True)
            if not self.root.exists():
                return
            time.sleep(0.05)


def after_this_process(tidy_up: Callable[[], None]) -> None:
    """Has a copy of this process do something once this one, which has to end now, has ended.

    Other threads of this one may be making files until then; the copy has none of them. It keeps
    standard output open, so that whoever waits for that to end waits for the copy too.
    """
    read, write = os.pipe()
    if os.fork() != 0:
        return
    try:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        os.close(write)
        os.read(read, 1)
        tidy_up()
    finally:
        os._exit(0)


def sweep(beside: Path) -> list[str]:
    """Removes the folders beside one that processes of this user left which were killed."""
    removed = []
    for folder in _abandoned(beside.parent):
        if folder != beside:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(str(folder))
    return removed


def _abandoned(parent: Path) -> Iterator[Path]:
    for folder in sorted(parent.glob(f"{PREFIX}*")):
        with suppress(OSError):
            status = folder.lstat()
            settled = time.time() - status.st_mtime > _SETTLED_S
            if folder.is_dir() and status.st_uid == os.getuid() and settled and _is_free(folder):
                yield folder


def _is_free(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
