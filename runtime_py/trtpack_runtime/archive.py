# SPDX-License-Identifier: Apache-2.0
"""Maps a bundle's tar and refuses whatever is not exactly what its manifest says.

Any tool that knows tar can list and unpack a bundle; here it is mapped and sliced. The manifest
determines every byte but the members' content: headers are computed and compared, not parsed.
``docs/reference/bundle-format.md`` is the law.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from .errors import BundleError
from .mapping import mapped
from .tar_layout import (
    BLOCK,
    END,
    FORMAT,
    MANIFEST,
    MANIFEST_START,
    Entry,
    fill,
    headers,
    padded,
    read_comment,
    read_name,
    read_size,
)

_MAX_MANIFEST_BYTES = 256 << 20
_CHUNK = 4 << 20
_NOT_A_BUNDLE = "give the file that trtpack build wrote"


class Archive:
    """A mapped archive. Its manifest is checked at once, the layout of the rest by ``index``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = _map(path)
        self._parts: dict[str, memoryview] = {}
        self._offsets: dict[str, int] = {}
        size, digest = self._manifest_header()
        self.digest = digest
        end = MANIFEST_START + size
        self.manifest = bytes(self._slice(MANIFEST_START, end, MANIFEST))
        if (has := hashlib.sha256(self.manifest).hexdigest()) != digest:
            self._refuse("manifest.json is corrupt", wants=digest, has=has, member=MANIFEST)
        self._expect(fill(size), end, "padding after manifest.json")

    def index(self, entries: Iterable[Entry]) -> None:
        """Checks that the file holds exactly these members, in this order, unaltered in layout."""
        wanted = list(entries)
        position = MANIFEST_START + padded(len(self.manifest))
        for entry in wanted:
            expected = headers(entry, position)
            if bytes(self._data[position : position + len(expected)]) != expected:
                self._diagnose(entry, position, position + len(expected), wanted)
            position += len(expected)
            end = position + entry.size
            self._parts[entry.name] = self._slice(position, end, entry.name)
            self._offsets[entry.name] = position
            self._expect(fill(entry.size), end, f"padding after {entry.name}")
            position = padded(end)
        if position < len(self._data) and (name := read_name(self._data, position)):
            self._refuse(f"{name} is not listed in the manifest", member=name)
        self._expect(END, position, "end of the archive")
        if len(self._data) > position + len(END):
            self._refuse("has bytes after its end", wants=position + len(END), has=len(self._data))

    def part(self, name: str) -> memoryview:
        """A member's content, mapped; KeyError for a name that was not indexed."""
        return self._parts[name]

    def offset(self, name: str) -> int:
        """Where a member's content starts in the file; KeyError as ``part``."""
        return self._offsets[name]

    def map_again(self) -> None:
        """Maps the file anew, where it is in place: nothing was written to these parts."""
        self._data = _map(self.path)
        for name, part in list(self._parts.items()):
            self._parts[name] = self._data[self._offsets[name] : self._offsets[name] + len(part)]

    def is_in_place(self) -> bool:
        """Whether ``path`` still is a file of this content, which a replaced one is not."""
        try:
            with self.path.open("rb") as file:
                return file.read(MANIFEST_START) == bytes(self._data[:MANIFEST_START])
        except OSError:
            return False

    def _manifest_header(self) -> tuple[int, str]:
        """The manifest's size and digest, from headers that are otherwise as they must be."""
        if len(self._data) < MANIFEST_START + len(END):
            self._refuse("is no bundle, or the beginning of one", hint=_NOT_A_BUNDLE)
        comment = read_comment(bytes(self._data[BLOCK : 2 * BLOCK]))
        if comment is None:
            self._refuse("is no bundle, or its first blocks are damaged", hint=_NOT_A_BUNDLE)
        format_name, digest = comment
        if format_name != FORMAT:
            self._refuse(
                f"has the format {format_name}, this runtime reads {FORMAT}",
                wants=format_name,
                has=FORMAT,
                hint="update trtpack-runtime on this device",
            )
        size = read_size(bytes(self._data[2 * BLOCK : MANIFEST_START])) or 0
        expected = headers(Entry(MANIFEST, size, digest), 0)
        if bytes(self._data[:MANIFEST_START]) != expected or not 0 < size <= _MAX_MANIFEST_BYTES:
            self._refuse("the header of manifest.json is damaged", member=MANIFEST)
        return size, digest

    def _diagnose(
        self, entry: Entry, position: int, start: int, wanted: Sequence[Entry]
    ) -> NoReturn:
        """Says how the headers from ``position`` to ``start`` are not those of ``entry``."""
        if bytes(self._data[position : position + len(END) + 1]) == END:
            self._refuse(f"lacks {entry.name}, which the manifest lists", member=entry.name)
        if start > len(self._data):
            self._refuse(
                f"ends before {entry.name}",
                wants=start + entry.size,
                has=len(self._data),
                member=entry.name,
            )
        found = read_name(self._data, position)
        if found is None or found == entry.name:
            self._refuse(f"the header of {entry.name} is damaged", member=entry.name)
        if found in self._parts:
            what = "stands twice"
        elif found in (e.name for e in wanted):
            what = "is out of order"
        else:
            what = "is not listed in the manifest"
        self._refuse(f"{found} {what}", wants=entry.name, has=found, member=found)

    def _slice(self, begin: int, end: int, name: str) -> memoryview:
        if end > len(self._data):
            self._refuse(f"ends inside {name}", wants=end, has=len(self._data), member=name)
        return self._data[begin:end]

    def _expect(self, wanted: bytes, position: int, what: str) -> None:
        has = bytes(self._data[position : position + len(wanted)])
        if len(has) < len(wanted):
            self._refuse(
                f"ends before the {what}", wants=position + len(wanted), has=len(self._data)
            )
        if has != wanted:
            self._refuse(f"the {what} is damaged")

    def _refuse(
        self,
        what: str,
        *,
        wants: object = None,
        has: object = None,
        member: str | None = None,
        hint: str = "",
    ) -> NoReturn:
        compared = "" if wants is None else f", wants {wants}, has {has}"
        raise BundleError(
            f"{self.path}: {what}{compared}",
            hint=hint or "copy the bundle again, or build it again",
            wants=wants,
            has=has,
            member=member,
        )


def digest_of(data: memoryview) -> str:
    """The sha256 of mapped bytes, in hex; in chunks, so that it can be interrupted."""
    hasher = hashlib.sha256()
    for begin in range(0, len(data), _CHUNK):
        hasher.update(data[begin : begin + _CHUNK])
    return hasher.hexdigest()


def _map(path: Path) -> memoryview:
    try:
        return mapped(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BundleError(f"cannot open {path}: {reason}", hint=_NOT_A_BUNDLE) from error
