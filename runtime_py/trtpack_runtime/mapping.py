# SPDX-License-Identifier: Apache-2.0
"""Files as memory: private, so that writing changes no file, and larger than memory if need be."""

from __future__ import annotations

import errno
import mmap
import sys
from pathlib import Path

_NO_RESERVE = 0x4000  # MAP_NORESERVE of Linux; the mmap module names it from Python 3.11 on


def mapped(path: Path) -> memoryview:
    """The bytes of a file.

    Raises:
        OSError: it cannot be opened or mapped, or is empty.
    """
    with path.open("rb") as file:
        try:
            if sys.platform == "linux":  # else a file larger than memory and swap is refused
                flags = mmap.MAP_PRIVATE | _NO_RESERVE
                prot = mmap.PROT_READ | mmap.PROT_WRITE
                return memoryview(mmap.mmap(file.fileno(), 0, flags=flags, prot=prot))
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        except ValueError as error:
            raise OSError(errno.ENODATA, "The file is empty", str(path)) from error
