# SPDX-License-Identifier: Apache-2.0
"""The first program that runs on a device: it takes the wheels, and starts what is in them.

It is the source of Python, and says so in words any Python since 2.7 reads, since one that is too
old has to be able to tell.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence

from trtpack_runtime.archive_writer import Member
from trtpack_runtime.errors import InternalError
from trtpack_runtime.remote.place import PREFIX

OLDEST_PYTHON = (3, 10)

_FIRST = 'import sys;exec(getattr(sys.stdin,"buffer",sys.stdin).readline())'
"""Reads one line of standard input and runs it; what follows stays there to be read."""

_PROGRAM = """
import sys

def tell(text):
    sys.stdout.write("@MARK@ " + text + "\\n")
    sys.stdout.flush()

def start():
    import fcntl, hashlib, json, os, shutil, signal, tempfile
    def stop(number, frame):
        sys.exit(1)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    sys.path[:] = [place for place in sys.path if place]
    stream = sys.stdin.buffer
    asked = json.loads(stream.readline())
    root = None
    try:
        parent = asked["folder"] or tempfile.gettempdir()
        root = tempfile.mkdtemp(prefix="@PREFIX@", dir=parent)
        lock = os.open(root, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        paths = []
        for name, size, digest in asked["wheels"]:
            data = stream.read(size)
            if len(data) < size:
                sys.exit(1)
            if hashlib.sha256(data).hexdigest() != digest:
                raise OSError(name + " arrived damaged")
            paths.append(os.path.join(root, name))
            with open(paths[-1], "wb") as file:
                file.write(data)
        sys.path[:0] = paths
        from trtpack_runtime.remote.end import main
        tell("{}")
        main(root, paths)
    except OSError as error:
        reason = error.strerror or str(error)
        tell(json.dumps({"refused": reason, "folder": parent}))
    finally:
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)

if sys.version_info < @OLDEST@:
    tell('{"python": "%d.%d.%d"}' % tuple(sys.version_info[:3]))
else:
    start()
"""


def command(python: str) -> str:
    """What the device's shell is told to run; any shell reads it."""
    return f"exec {shlex.quote(python)} -c {shlex.quote(_FIRST)}"


def first_bytes(mark: str, folder: str | None, wheels: Sequence[Member]) -> bytes:
    """What that reads: the program, what it is asked for, the wheels.

    Args:
        mark: what its answer begins with; a login shell may have said something before.
        folder: where its own folder is to be; None leaves it to the device.
        wheels: what goes on its path.
    """
    source = _PROGRAM.replace("@MARK@", mark).replace("@PREFIX@", PREFIX)
    source = source.replace("@OLDEST@", repr(OLDEST_PYTHON))
    contents = [(member.name.rpartition("/")[2], _bytes(member)) for member in wheels]
    asked = {
        "folder": folder,
        "wheels": [(name, len(d), hashlib.sha256(d).hexdigest()) for name, d in contents],
    }
    lines = [f"exec({source!r})", json.dumps(asked)]
    return "\n".join([*lines, ""]).encode() + b"".join(data for _, data in contents)


def _bytes(member: Member) -> bytes:
    if not isinstance(member.source, bytes):
        raise InternalError(f"{member.name} is not in memory")
    return member.source
