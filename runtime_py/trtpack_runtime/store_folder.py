# SPDX-License-Identifier: Apache-2.0
"""Where a machine keeps what it built and measured, and how much of its disk that may take.

It is ``$XDG_CACHE_HOME/trtpack``, by default ``~/.cache/trtpack``. Where that cannot be written, as
on a read-only root file system, what is there is still read, and what is new goes to
``trtpack-<user>`` in ``$TMPDIR``, ``/var/tmp`` or ``/tmp``, the last of which often is memory.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from .amounts import parse_bytes
from .errors import ConfigError

LIMIT_BYTES = 20 << 30
"""What the engines may take in all, unless said otherwise."""

LIMIT_VARIABLE = "TRTPACK_STORE_LIMIT"
"""The environment variable that says otherwise, such as ``2G``."""

SPARE_PARENTS = tuple(map(Path, filter(None, (os.environ.get("TMPDIR"), "/var/tmp", "/tmp"))))
"""Where the spare folder may be."""

_SHARE = 0.5
"""The part of a disk's free space that the engines may take where nobody set a limit."""


@dataclass(frozen=True)
class StoreFolder:
    """Where things are kept: in ``home``, and where that cannot be written, what is new in
    ``spare``."""

    home: Path
    spare: Path | None = None

    @property
    def written(self) -> Path:
        """Where what is new goes."""
        return self.home if self.spare is None else self.spare

    @property
    def read(self) -> tuple[Path, ...]:
        """Where what is kept may be, the newest first."""
        return (self.home,) if self.spare is None else (self.spare, self.home)

    @property
    def told(self) -> str | None:
        """Where things are kept instead of ``home``, as a clause; None where they are there."""
        return None if self.spare is None else f"kept in {self.spare}, {self.home} is read-only"

    def below(self, name: str) -> StoreFolder:
        """A folder of that name in each."""
        return StoreFolder(self.home / name, None if self.spare is None else self.spare / name)


def store_folder() -> StoreFolder:
    """The user's own, with a spare one where it cannot be written."""
    home = default_home()
    return StoreFolder(home) if writable(home) else StoreFolder(home, _spare())


def default_home() -> Path:
    """``$XDG_CACHE_HOME/trtpack``, by default below ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME")
    cache = Path(root) if root else Path(os.path.expanduser("~")) / ".cache"  # noqa: PTH111 never raises
    return cache / "trtpack"


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or it itself can be made."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def free_bytes(folder: Path) -> int | None:
    """What the disk of a folder has left; None where that cannot be told."""
    for place in (folder, *folder.parents):
        if place.exists():
            try:
                return shutil.disk_usage(place).free
            except OSError:
                return None
    return None


def limit_variable_bytes() -> int | None:
    """What ``TRTPACK_STORE_LIMIT`` lets the engines take in all; None where it is not set.

    Raises:
        ConfigError: it is no size.
    """
    said = os.environ.get(LIMIT_VARIABLE)
    if not said:
        return None
    try:
        return parse_bytes(said)
    except ConfigError as error:
        raise ConfigError(f"{LIMIT_VARIABLE}: {error.message}", hint=error.hint) from error


def fair_limit_bytes(folder: Path, taken: int) -> int:
    """What the engines in a folder may take in all where nobody set a limit: 20 GiB, but not more
    than half of what its disk has for them. ``taken`` is what they take now."""
    free = free_bytes(folder)
    return LIMIT_BYTES if free is None else min(LIMIT_BYTES, int((free + taken) * _SHARE))


def _spare() -> Path | None:
    """A folder of this user alone among temporary files; None where none can be had."""
    for parent in SPARE_PARENTS:
        folder = parent / f"trtpack-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
        except OSError:
            continue
        mine = status.st_uid == os.getuid() and not status.st_mode & 0o077
        if stat.S_ISDIR(status.st_mode) and mine and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None
