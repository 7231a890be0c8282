# SPDX-License-Identifier: Apache-2.0
"""Writes a bundle's tar in one pass: the same members give the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from . import contents
from .atomic import cannot_write, replaced
from .errors import ConfigError, InternalError
from .tar_layout import END, MANIFEST, Entry, check_name, fill, headers

_CHUNK = 4 << 20
_UNKNOWN = "0" * 64


class Pieces(Protocol):
    """Content that is made while it is written, such as ``safetensors.Encoded``."""

    size: int

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The bytes in order, ``size`` in all."""


@dataclass(frozen=True)
class Member:
    """A member to write: bytes, a file to copy, or content that comes piece by piece."""

    name: str
    source: bytes | Path | Pieces


def write_archive(
    path: Path, members: Sequence[Member], manifest: Callable[[Sequence[Entry]], bytes]
) -> list[Entry]:
    """Writes an archive in one pass, atomically; answers its entries.

    ``manifest`` makes the manifest's bytes; their length may not depend on the digests, since room
    for them is left before the members are read.

    Raises:
        ConfigError: the disk refuses, or a source file cannot be read.
    """
    entries = [Entry(m.name, _size(m), _UNKNOWN) for m in members]
    draft = manifest(entries)
    try:
        with replaced(path) as file:
            file.write(headers(Entry(MANIFEST, len(draft), _UNKNOWN), 0))
            file.write(draft + fill(len(draft)))
            for i, member in enumerate(members):
                file.write(headers(entries[i], file.tell()))
                entries[i] = Entry(member.name, entries[i].size, _copy(member, entries[i], file))
                file.write(fill(entries[i].size))
            file.write(END)
            final = manifest(entries)
            if len(final) != len(draft):
                raise InternalError("the manifest's length depends on its digests")
            file.seek(0)
            digest = hashlib.sha256(final).hexdigest()
            file.write(headers(Entry(MANIFEST, len(final), digest), 0) + final)
    except OSError as error:
        raise cannot_write(path, error) from error
    return entries


def _size(member: Member) -> int:
    if reason := check_name(member.name):
        raise InternalError(f"a member called {member.name!r} {reason}")
    match member.source:
        case bytes():
            return len(member.source)
        case Path():
            try:
                return member.source.stat().st_size
            except OSError as error:
                raise _cannot_read(member.source, error) from error
        case _:
            return member.source.size


def _copy(member: Member, entry: Entry, file: BinaryIO) -> str:
    """Writes a member's content; answers its sha256 in hex."""
    hasher, size, head, last = hashlib.sha256(), 0, b"", b""
    for piece in _pieces(member.source):
        for begin in range(0, len(piece), _CHUNK):
            part = memoryview(piece)[begin : begin + _CHUNK]
            hasher.update(part)
            file.write(part)
        if len(head) < contents.HEAD_BYTES:
            head += bytes(piece[: contents.HEAD_BYTES - len(head)])
        last = bytes(piece[-1:]) or last
        size += len(piece)
    if size != entry.size:
        raise InternalError(f"member {member.name} has {size} bytes, not the {entry.size} it said")
    if reason := contents.refused(member.name, head, last):
        raise InternalError(f"member {member.name} {reason}")
    return hasher.hexdigest()


def _pieces(source: bytes | Path | Pieces) -> Iterator[bytes | memoryview]:
    match source:
        case bytes():
            yield source
        case Path():
            try:
                file = source.open("rb")
            except OSError as error:
                raise _cannot_read(source, error) from error
            with file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        case _:
            yield from source.pieces()


def _cannot_read(path: Path, error: OSError) -> ConfigError:
    reason = (error.strerror or str(error)).lower()
    return ConfigError(f"cannot read {path}: {reason}", hint="build again, the file is gone")
