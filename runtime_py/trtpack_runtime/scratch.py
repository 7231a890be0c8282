# SPDX-License-Identifier: Apache-2.0
"""A folder for the time of one load, and an end to those that dead processes left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "trtpack-load-"
_LOCK = ".lock"
_SETTLED_S = 60.0
"""Older folders have their lock."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that is removed when the block ends; a process that is killed meanwhile leaves it to
    the next one that asks here.

    Where the disk refuses, the answer is a folder that is not there: only builds need one.
    """
    with contextlib.ExitStack() as stack:
        folder = Path("/nonexistent/trtpack")
        with contextlib.suppress(OSError):
            at = Path(tempfile.gettempdir())
            sweep(at)
            made = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=at, ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(made))
            lock = stack.enter_context((folder / _LOCK).open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def sweep(at: Path) -> list[Path]:
    """Removes this user's folders below ``at`` that no process holds; answers which."""
    removed = []
    for folder in at.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            about = folder.stat()
            if about.st_uid != os.getuid() or time.time() - about.st_mtime < _SETTLED_S:
                continue
            with (folder / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while it is held
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
    return removed
