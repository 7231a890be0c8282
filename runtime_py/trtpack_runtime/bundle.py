# SPDX-License-Identifier: Apache-2.0
"""A bundle as an object: opened, checked, and its members and weights as mapped memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from . import checked_json, contents, safetensors
from .archive import Archive, digest_of
from .archive_writer import Member, write_archive
from .errors import BundleError, ConfigError, InternalError
from .manifest import Manifest
from .mapping import FilePart
from .phases import phase
from .safetensors import TensorView
from .tar_layout import Entry

__all__ = ["Bundle", "Member", "open_bundle", "write_bundle"]

Progress = Callable[[Entry], None]
"""Called with each member after its digest was compared."""


class Bundle:
    """An opened bundle; ``open_bundle`` makes it.

    The file is mapped once, privately: memory that a member's content needs is shared with other
    processes until a tensor over it is written to; the file never changes. A member's digest is
    compared when it is first asked for.
    """

    def __init__(self, path: Path, archive: Archive, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._archive = archive
        self._entries = {entry.name: entry for entry in manifest.members}
        self._verified: set[str] = set()
        self._weights: dict[str, TensorView] | None = None

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, name={self.manifest.name!r})"

    @property
    def digest(self) -> str:
        """The sha256 of the manifest, in hex; it names the bundle's whole content."""
        return self._archive.digest

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Every member's size and digest, in the order of the file."""
        return dict(self._entries)

    def member(self, name: str) -> memoryview:
        """A member's bytes, mapped and read-only.

        Raises:
            BundleError: no such member, or its content is not what the manifest says, or no data.
        """
        return self._part(name).toreadonly()

    def file_part(self, name: str) -> FilePart:
        """Where a member's bytes are, for another process to map; raises as ``member``.

        It holds as long as nobody replaces the file, see ``is_in_place``.
        """
        part = self._part(name)
        return FilePart(self.path, self._archive.offset(name), len(part))

    def is_in_place(self) -> bool:
        """Whether the file at ``path`` is still the one that was opened, or an equal one."""
        return self._archive.is_in_place()

    def json(self, name: str) -> Any:
        """A member's JSON; raises as ``member``, and BundleError where it is none."""
        try:
            return checked_json.parse(bytes(self._part(name)))
        except checked_json.MalformedError as error:
            raise BundleError(
                f"{self.path}: malformed {name}: {error}",
                hint="build the bundle again",
                member=name,
            ) from error

    def tensors(self, name: str) -> dict[str, TensorView]:
        """The tensors of a safetensors member by name; raises as ``member``."""
        return safetensors.parse(self._part(name), f"{self.path}: {name}")

    @property
    def weights(self) -> Mapping[str, TensorView]:
        """Every stored tensor by name, mapped.

        Raises:
            BundleError: a weight member is corrupt, or two hold a tensor of one name.
        """
        if self._weights is None:
            found: dict[str, TensorView] = {}
            for member in self.manifest.weights.members:
                for name, view in self.tensors(member).items():
                    if name in found:
                        raise BundleError(
                            f"{self.path}: the tensor {name} is stored twice",
                            hint="build the bundle again",
                            member=member,
                        )
                    found[name] = view
            self._weights = found
        return dict(self._weights)

    def map_again(self) -> None:
        """Maps the file anew, so that members asked for from now on are as the file has them,
        whatever was written to tensors over those before.

        Raises:
            BundleError: it is no longer in place.
        """
        if not self.is_in_place():
            raise BundleError(
                f"{self.path} is no longer there, or another file",
                hint="keep the bundle where it was loaded from",
            )
        self._archive.map_again()
        self._weights = None

    def verify(self, progress: Progress | None = None) -> int:
        """Checks the digest of every member and that it is data; answers how many bytes that was.

        A member that was compared before is not read again.

        Raises:
            BundleError: names the first member whose content differs.
        """
        for name, entry in self._entries.items():
            self._part(name)
            if progress is not None:
                progress(entry)
        return sum(entry.size for entry in self._entries.values())

    def _part(self, name: str) -> memoryview:
        try:
            entry = self._entries[name]
        except KeyError:
            raise BundleError(
                f"{self.path}: there is no member {name}",
                hint="see its members with: trtpack inspect --members",
                member=name,
            ) from None
        part = self._archive.part(name)
        if name not in self._verified:
            with phase("verify"):
                has = digest_of(part)
            if has != entry.sha256:
                raise BundleError(
                    f"{self.path}: {name} is corrupt, wants sha256 {entry.sha256[:12]}, "
                    f"has {has[:12]}",
                    hint="copy the bundle again, or build it again",
                    wants=entry.sha256,
                    has=has,
                    member=name,
                )
            self._check_content(name, part)
            self._verified.add(name)
        return part

    def _check_content(self, name: str, part: memoryview) -> None:
        head, last = bytes(part[: contents.HEAD_BYTES]), bytes(part[-1:])
        if reason := contents.refused(name, head, last):
            raise BundleError(
                f"{self.path}: {name} {reason}, which no member of that name may be",
                hint="do not use this bundle, build it again from a source you trust",
                member=name,
            )


def open_bundle(
    path: str | os.PathLike[str], *, verify: Literal["lazy", "full"] = "lazy"
) -> Bundle:
    """Maps a bundle and checks its manifest and layout.

    ``verify="full"`` compares every member's digest at once; otherwise each is compared when it is
    first used.

    Raises:
        BundleError: no such file, or one that is damaged, incomplete, altered or of a newer format.
        ConfigError: another value of ``verify``.
    """
    if verify not in ("lazy", "full"):
        raise ConfigError(f"unknown verify={verify!r}", hint="give lazy or full")
    file = Path(path)
    archive = Archive(file)
    try:
        manifest = Manifest.from_bytes(archive.manifest)
        manifest.check_references()
    except BundleError as error:
        raise BundleError(
            f"{file}: {error.message}",
            hint=error.hint,
            wants=error.wants,
            has=error.has,
            member=error.member,
        ) from error
    archive.index(manifest.members)
    bundle = Bundle(file, archive, manifest)
    if verify == "full":
        bundle.verify()
    return bundle


def write_bundle(
    path: str | os.PathLike[str], manifest: Manifest, members: Sequence[Member]
) -> Manifest:
    """Writes a bundle, atomically; answers the manifest with its list of members.

    The members stand in the file in the order given. The same manifest and members give the same
    bytes.

    Raises:
        ConfigError: the disk refuses, or a source cannot be read; what was at ``path`` is kept.
        InternalError: a member that readers would refuse: no data, or of the name of another.
    """
    names = [member.name for member in members]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InternalError(f"two members are called {twice}")
    draft = manifest.with_members([Entry(name, 0, "0" * 64) for name in names])
    draft.check_references()
    entries = write_archive(
        Path(path), members, lambda entries: manifest.with_members(entries).to_bytes()
    )
    return manifest.with_members(entries)
