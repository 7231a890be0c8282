# SPDX-License-Identifier: Apache-2.0
"""How a bundle's tar is laid out: names and sizes determine every byte but the contents."""

from __future__ import annotations

import re
from dataclasses import dataclass

MANIFEST = "manifest.json"
FORMAT = "trtpack.bundle/1"
BLOCK = 512
ALIGNMENT = 4096
LARGE = 64 << 10
"""Members of at least this many bytes start at a multiple of ``ALIGNMENT``."""
MANIFEST_START = 3 * BLOCK
"""Where the manifest's bytes begin: after its pax header, that header's body, its own header."""
END = bytes(2 * BLOCK)
"""What closes the archive."""

_MAX_USTAR_SIZE = 8**11 - 1
_NAME = re.compile(r"(?=.{1,100}$)[\w@+=,.-]+(/[\w@+=,.-]+)*", re.ASCII)
_NUMBER = re.compile(rb"[0-7]{11}")
_COMMENT = re.compile(rb"512 comment=(trtpack\.bundle/\d+) sha256=([0-9a-f]{64}) *\n")


@dataclass(frozen=True)
class Entry:
    """What the manifest says of a member: its name, bytes, and sha256 in hex."""

    name: str
    size: int
    sha256: str


def check_name(name: str) -> str | None:
    """Why a member may not be called so, or None."""
    if not _NAME.fullmatch(name):
        return "is no relative path of up to 100 letters, digits and _@+=,.-"
    if name == MANIFEST:
        return "has the manifest's own name"
    if any(part in (".", "..") for part in name.split("/")):
        return "leaves its folder"
    return None


def headers(entry: Entry, position: int) -> bytes:
    """Every header block before the content of ``entry`` when they begin at ``position``."""
    header = _ustar(entry.name, entry.size)
    if entry.name == MANIFEST:
        return _pax(1, f"{FORMAT} sha256={entry.sha256}") + header
    start = position + BLOCK
    huge = entry.size > _MAX_USTAR_SIZE
    if huge or (entry.size >= LARGE and start % ALIGNMENT):
        blocks = 1 + -(start + 2 * BLOCK) % ALIGNMENT // BLOCK
        return _pax(blocks, size=entry.size if huge else None) + header
    return header


def _pax(blocks: int, comment: str = "", size: int | None = None) -> bytes:
    """A pax extended header whose body is exactly so many blocks, filled up by its ``comment``.

    A record is ``"<length> <key>=<value>\\n"``, the length counting itself.
    """
    body = "" if size is None else f"{len(f'00 size={size}') + 1} size={size}\n"
    room = blocks * BLOCK - len(body)
    body += f"{room} comment={comment}".ljust(room - 1) + "\n"
    return _ustar("./PaxHeaders/trtpack", len(body), b"x") + body.encode()


def _ustar(name: str, size: int, kind: bytes = b"0") -> bytes:
    """A POSIX ustar header without owner and time."""
    block = bytearray(BLOCK)
    block[: len(name)] = name.encode("ascii")
    for at, value in ((100, 0o644), (108, 0), (116, 0)):
        block[at : at + 8] = b"%07o\0" % value
    block[124:136] = b"%011o\0" % min(size, _MAX_USTAR_SIZE)
    block[136:148] = b"%011o\0" % 0
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(size: int) -> int:
    """``size`` rounded up to whole blocks."""
    return -size % BLOCK + size


def fill(size: int) -> bytes:
    """The zeros that follow a content of ``size`` bytes."""
    return bytes(-size % BLOCK)


def read_comment(block: bytes) -> tuple[str, str] | None:
    """The format's name and the manifest's digest from the body of the first pax header."""
    match = _COMMENT.fullmatch(block)
    return (match[1].decode(), match[2].decode()) if match else None


def read_size(header: bytes) -> int | None:
    """The size that a ustar header states."""
    octal = header[124:135]
    return int(octal, 8) if _NUMBER.fullmatch(octal) else None


def read_name(data: memoryview, position: int) -> str | None:
    """The member whose headers begin at ``position``; None where there are no sound ones."""
    for _ in range(2):
        block = bytes(data[position : position + BLOCK])
        size = read_size(block)
        if len(block) < BLOCK or block[257:263] != b"ustar\0" or size is None:
            return None
        if block[156:157] != b"x":
            name = block[:100].rstrip(b"\0").decode("ascii", "replace")
            return None if check_name(name) else name
        position += BLOCK + padded(size)
    return None
