# SPDX-License-Identifier: Apache-2.0
"""Files as memory: private, so that writing changes no file, and larger than memory if need be."""

from __future__ import annotations

import errno
import mmap
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NO_RESERVE = 0x4000  # MAP_NORESERVE of Linux; the mmap module names it from Python 3.11 on


@dataclass(frozen=True)
class FilePart:
    """A part of a file, such as a member of a bundle; ``offset`` and ``size`` are in bytes."""

    path: Path
    offset: int
    size: int


def to_json(place: Path | FilePart) -> Any:
    """A file or a part of one as plain JSON, for another process."""
    if isinstance(place, FilePart):
        return [str(place.path.resolve()), place.offset, place.size]
    return str(place.resolve())


def from_json(value: Any) -> Path | FilePart:
    """The inverse of ``to_json``."""
    if isinstance(value, str):
        return Path(value)
    path, offset, size = value
    return FilePart(Path(path), offset, size)


def mapped(place: Path | FilePart) -> memoryview:
    """The bytes of a file, or of a part of one.

    Raises:
        OSError: it cannot be opened or mapped, is empty, or ends before the part does.
    """
    if isinstance(place, FilePart):
        end = place.offset + place.size
        part = mapped(place.path)[place.offset : end]
        if len(part) != place.size:
            raise OSError(errno.ENODATA, f"The file ends before byte {end}", str(place.path))
        return part
    path = place
    with path.open("rb") as file:
        try:
            if sys.platform == "linux":  # else a file larger than memory and swap is refused
                flags = mmap.MAP_PRIVATE | _NO_RESERVE
                prot = mmap.PROT_READ | mmap.PROT_WRITE
                return memoryview(mmap.mmap(file.fileno(), 0, flags=flags, prot=prot))
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        except ValueError as error:
            raise OSError(errno.ENODATA, "The file is empty", str(path)) from error
