# SPDX-License-Identifier: Apache-2.0
"""Where a build keeps its files until the bundle is whole."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trtpack_runtime.atomic import FULL
from trtpack_runtime.errors import ConfigError, EngineBuildError

_NO_SPACE = os.strerror(errno.ENOSPC).lower()
_NO_ROOM_BYTES = 1 << 20
"""With less free than this, a builder that died died of it."""


@contextmanager
def work_folder(output: Path) -> Iterator[Path]:
    """A folder beside the output, so that the finished bundle is renamed and not copied.

    It is removed however the block ends.

    Raises:
        ConfigError: the disk is full; the message names the output, not a file of this folder.
    """
    try:
        with tempfile.TemporaryDirectory(
            prefix=".trtpack-", dir=output.absolute().parent, ignore_cleanup_errors=True
        ) as name:
            folder = Path(name)
            try:
                yield folder
            except EngineBuildError as error:
                if is_full(folder):
                    raise _no_space(output) from error
                raise
    except Exception as error:
        if _ran_out(error):
            raise _no_space(output) from error
        raise


def is_full(folder: Path) -> bool:
    """Whether a builder that died there most likely died of a full disk."""
    return shutil.disk_usage(folder).free < _NO_ROOM_BYTES


def _ran_out(error: BaseException | None) -> bool:
    """Whether the disk was full, here or (as a child process tells in its message) there."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if _NO_SPACE in str(error).lower():
            return True
        error = error.__cause__
    return False


def _no_space(output: Path) -> ConfigError:
    folders = [output.absolute().parent, Path(tempfile.gettempdir())]
    if folders[0].stat().st_dev == folders[1].stat().st_dev:
        folders.pop()
    disks = " and of ".join(map(str, folders))
    return ConfigError(
        f"cannot write {output}: {_NO_SPACE}",
        hint=f"free space on the disk of {disks}, or choose another --output",
    )
