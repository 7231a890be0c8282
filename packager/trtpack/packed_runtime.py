# SPDX-License-Identifier: Apache-2.0
"""The runtime's package as a device gets it: its modules slimmed, and all in one archive.

Compressed together they take a quarter of the room. ``packed_modules`` of the runtime imports them.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping

from trtpack_runtime.packed_modules import ARCHIVE

from .slim_source import slim

_INIT = "__init__.py"
_PLAIN = (_INIT, "packed_modules.py")
_START = """
from .packed_modules import add_modules

add_modules(__spec__)
"""
"""What ``__init__.py`` ends with."""

_HELP = "cli/"
"""Where the modules are whose docstrings are the commands' help."""


def packed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The package with its modules in an archive; one that was installed so as it is.

    Args:
        files: all of the package, by name in it.
    """
    if ARCHIVE in files:
        return dict(files)
    modules = {name: _slim(name, data) for name, data in files.items() if name.endswith(".py")}
    data = {name: data for name, data in files.items() if name not in modules}
    plain = {name: modules.pop(name) for name in _PLAIN}
    plain[_INIT] += _START.encode()
    return {**data, **plain, ARCHIVE: _archive(modules)}


def _slim(name: str, data: bytes) -> bytes:
    return data if name.startswith(_HELP) else slim(data.decode()).encode()


def _archive(files: Mapping[str, bytes]) -> bytes:
    """The same bytes for the same files."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(target.getvalue(), mtime=0)
