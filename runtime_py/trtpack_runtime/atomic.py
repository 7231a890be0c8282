# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import ConfigError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a disk without room says, or one that gives its user no more."""


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` when the block ends well.

    It stands in the same folder meanwhile. Where the block raises, even KeyboardInterrupt, it is
    removed and what was at ``path`` stays as it was.

    Raises:
        OSError: the disk refused; see ``cannot_write``.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(_mode(path))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def check_writable(path: Path, option: str) -> None:
    """Refuses a path that could not be written at the end, before any work starts.

    Raises:
        ConfigError: it is a folder, its folder does not exist, or it may not be written.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise ConfigError(f"{path} is a folder", hint=f"give {option} the name of a file in it")
    if path.exists() and not path.is_file():
        raise ConfigError(
            f"{path} is a device or a pipe, which a file cannot replace",
            hint=f"give {option} the name of a file",
        )
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder {folder}", hint=f"create it, or choose another {option}"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"folder {folder} is not writable", hint=f"choose another folder for {option}"
        )


def cannot_write(path: Path, error: OSError) -> ConfigError:
    """What to tell a user when the disk refused ``path``."""
    reason = (error.strerror or str(error)).lower()
    hint = "choose another place for it"
    if error.errno in FULL:
        hint = f"free space on the disk of {path.parent}, or choose another place"
    elif error.errno == errno.ENOENT:
        reason = f"there is no folder {path.parent}"
        hint = "create the folder first"
    return ConfigError(f"cannot write {path}: {reason}", hint=hint)


def _mode(path: Path) -> int:
    """The permissions of the file that is replaced, else what the user's mask leaves."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """Makes the new name last through a power cut, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
