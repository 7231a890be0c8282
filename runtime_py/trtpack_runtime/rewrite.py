# SPDX-License-Identifier: Apache-2.0
"""Writes a bundle anew with some members exchanged, added or left out, the others byte for byte."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from .bundle import Bundle, Member, write_bundle
from .manifest import Manifest

_FOLDERS = ("programs", "networks", "golden", "weights", "engines", "caches", "runtime")
"""The order of members in a bundle, by the first part of their names."""


class _Kept:
    """A member of an opened bundle; its digest is compared when its turn comes."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        self._bundle, self._name = bundle, name
        self.size = bundle.entries[name].size

    def pieces(self) -> Iterator[bytes | memoryview]:
        yield self._bundle.member(self._name)


def rewrite(
    bundle: Bundle,
    path: str | os.PathLike[str],
    *,
    manifest: Manifest,
    add: Sequence[Member] = (),
    drop: Collection[str] = (),
) -> Manifest:
    """Writes ``bundle`` to ``path`` with ``manifest``, atomically; answers it with its members.

    A member of ``add`` takes the place of one of its name, else it comes after the last of its
    folder. ``drop`` names members to leave out. ``path`` may be the bundle's own: what is open
    stays readable as it was.

    Raises:
        BundleError: a member that is kept is corrupt, or the manifest refers to one that is gone.
        ConfigError: the disk refuses, or a source cannot be read; what was at ``path`` is kept.
    """
    new = {member.name: member for member in add}
    members = [
        new.pop(name, Member(name, _Kept(bundle, name)))
        for name in bundle.entries
        if name in new or name not in drop
    ]
    for member in new.values():
        rank = _rank(member.name)
        place = sum(_rank(other.name) <= rank for other in members)
        members.insert(place, member)
    return write_bundle(Path(path), manifest, members)


def _rank(name: str) -> int:
    folder = name.partition("/")[0]
    return _FOLDERS.index(folder) if folder in _FOLDERS else len(_FOLDERS)
