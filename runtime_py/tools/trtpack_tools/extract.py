# SPDX-License-Identifier: Apache-2.0
"""Takes engines, networks and weights out of a bundle as files for other tools."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtpack_runtime.atomic import cannot_write, replaced
from trtpack_runtime.bundle import Bundle
from trtpack_runtime.errors import BundleError, ConfigError
from trtpack_runtime.segments import TENSORRT_KINDS, FoundSegment, every_segment, find_segment

from . import triton

_BUILD = "build the bundle for a target with TensorRT"


@dataclass(frozen=True)
class Extracted:
    """A file that was written: from which member, byte for byte; None where it was made here.

    ``stripped`` says that an engine has no weights and is to be refitted before it runs.
    """

    path: Path
    member: str | None
    nbytes: int
    sha256: str
    stripped: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": str(self.path),
            "member": self.member,
            "bytes": self.nbytes,
            "sha256": self.sha256,
            "stripped": self.stripped,
        }


@dataclass(frozen=True)
class _File:
    path: Path
    content: bytes | memoryview
    member: str | None = None
    stripped: bool = False


def extract_plans(
    bundle: Bundle,
    folder: Path,
    *,
    target: str | None = None,
    segment: str | None = None,
    networks: bool = False,
    force: bool = False,
) -> list[Extracted]:
    """Writes ``TARGET/SEGMENT.plan`` for every TensorRT engine, each as it is in the bundle.

    With ``networks`` also ``TARGET/SEGMENT.json``, the portable network, for every segment that has
    one, and the weight store under ``weights/``.

    Raises:
        ConfigError: no such target or segment, a file that exists already, or the disk refuses.
        BundleError: there is no engine to take out, or a member is corrupt.
    """
    chosen = list(_chosen(bundle, target, segment))
    files: list[_File] = []
    for found in chosen:
        ref = found.ref
        if ref is not None and ref.kind in TENSORRT_KINDS and ref.member is not None:
            path = folder / found.variant / f"{found.name}.plan"
            files.append(_File(path, bundle.member(ref.member), ref.member, is_stripped(found)))
        if networks and found.segment.network is not None:
            path = folder / found.variant / f"{found.name}.json"
            member = found.segment.network
            files.append(_File(path, bundle.member(member), member))
    if not files:
        raise _nothing(chosen)
    if networks:
        for member in bundle.manifest.weights.members:
            files.append(_File(folder / member, bundle.member(member), member))
    return _write(files, force)


def extract_triton(
    bundle: Bundle,
    folder: Path,
    *,
    target: str | None = None,
    name: str | None = None,
    force: bool = False,
) -> list[Extracted]:
    """Writes a model repository for Triton: ``NAME/config.pbtxt`` and ``NAME/1/model.plan``.

    Raises:
        ConfigError: no such target, a file that exists already, or the disk refuses.
        BundleError: the variant is not one whole TensorRT engine.
    """
    model = triton.model(bundle, _one_variant(bundle, target), name)
    at = folder / model.name
    files = [
        _File(at / "config.pbtxt", model.config.encode()),
        _File(at / "1" / "model.plan", bundle.member(model.member), model.member),
    ]
    return _write(files, force)


def is_stripped(found: FoundSegment) -> bool:
    """Whether the engine lacks its weights, or has others than the bundle's."""
    record = found.ref.record if found.ref is not None else {}
    return record.get("weights") == "stripped" or bool(record.get("refit"))


def _chosen(bundle: Bundle, target: str | None, segment: str | None) -> Iterator[FoundSegment]:
    if segment is None or target is None:
        found = list(every_segment(bundle, target))
        if segment is not None and not any(f.name == segment for f in found):
            find_segment(bundle, segment, target)
        yield from (f for f in found if segment in (None, f.name))
        return
    yield find_segment(bundle, segment, target)


def _one_variant(bundle: Bundle, target: str | None) -> str:
    """The variant that was named, else the only one with engines for Triton."""
    if target is not None:
        list(every_segment(bundle, target))
        return target
    variants = bundle.manifest.variants
    fitting = [
        name
        for name, variant in variants.items()
        if any(e.kind == "tensorrt" and e.member for e in variant.engines.values())
    ]
    if len(fitting) > 1:
        raise ConfigError(
            f"the bundle has TensorRT engines for {', '.join(fitting)}",
            hint="choose one with --target",
        )
    if not fitting:
        raise _nothing(list(every_segment(bundle)), "for Triton", frozenset({"tensorrt"}))
    return fitting[0]


def _nothing(
    chosen: Sequence[FoundSegment],
    purpose: str = "to take out",
    kinds: Collection[str] = TENSORRT_KINDS,
) -> BundleError:
    """There is no engine of the kinds that would do."""
    reasons = dict.fromkeys(f"{found}: {_why_not(found, kinds)}" for found in chosen)
    deferred = any(f.kind in kinds for f in chosen)
    return BundleError(
        f"there is no TensorRT engine {purpose}; {'; '.join(reasons) or 'it has no segment'}",
        hint="build it on the device with: trtpack finish" if deferred else _BUILD,
    )


def _why_not(found: FoundSegment, kinds: Collection[str]) -> str:
    if found.kind in kinds and found.ref is not None and found.ref.member is None:
        return "it has no engine yet"
    if found.kind in TENSORRT_KINDS and found.kind not in kinds:
        return f"it runs by {found.kind}, for which Triton has no backend"
    return f"it runs by {found.kind}"


def _write(files: Collection[_File], force: bool) -> list[Extracted]:
    """Writes all files or, where one is in the way, none."""
    for file in files:
        if file.path.exists() and not force:
            raise ConfigError(
                f"{file.path} exists already",
                hint="add --force to replace it, or choose another -o",
            )
    written = []
    for file in files:
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            with replaced(file.path) as opened:
                opened.write(file.content)
        except OSError as error:
            raise cannot_write(file.path, error) from error
        digest = hashlib.sha256(file.content).hexdigest()
        size = len(file.content)
        written.append(Extracted(file.path, file.member, size, digest, file.stripped))
    return written
