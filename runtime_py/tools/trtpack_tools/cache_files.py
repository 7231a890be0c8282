# SPDX-License-Identifier: Apache-2.0
"""Cached engines and timing caches as files: written for another machine, and read there.

A timing cache is ``timing.cache`` with ``timing.lock.json`` beside it, an engine ``engine.plan``
with ``engine.json``; a folder or a tar archive holds one of the two. A bundle's timing caches are
read too.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trtpack_runtime.archive import digest_of
from trtpack_runtime.atomic import cannot_write, replaced
from trtpack_runtime.bundle import Bundle, open_bundle
from trtpack_runtime.checked_json import MalformedError, canonical, parse
from trtpack_runtime.contents import HEAD_BYTES, refused
from trtpack_runtime.engine_store import StoredEngine
from trtpack_runtime.errors import BundleError, ConfigError
from trtpack_runtime.ledger import carries_code
from trtpack_runtime.manifest import EngineRef
from trtpack_runtime.mapping import mapped
from trtpack_runtime.resolve import unknown_variant
from trtpack_runtime.tactics import TacticKey, Tactics, from_lock, to_lock

CACHE, LOCK, PLAN, RECORD = "timing.cache", "timing.lock.json", "engine.plan", "engine.json"
_SCHEMA = "trtpack.engine/1"
_MANIFEST = "manifest.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class EngineFile:
    """An engine that was exported: its file, and what its store knew of it.

    ``carries_code`` says that it holds machine code for the host.
    """

    key: str
    path: Path
    record: Mapping[str, Any]
    about: Mapping[str, Any]
    seconds: float
    carries_code: bool


def export_files(item: StoredEngine | Tactics) -> dict[str, bytes | Path]:
    """The files that hold an engine or a timing cache, by name."""
    if isinstance(item, Tactics):
        return {CACHE: item.blob, LOCK: to_lock(item)}
    digest = digest_of(mapped(item.path))
    described = {
        "schema": _SCHEMA,
        "key": item.key,
        "sha256": digest,
        "record": dict(item.record),
        "about": dict(item.about),
        "seconds": item.seconds,
    }
    return {PLAN: item.path, RECORD: canonical(described)}


def write_files(files: Mapping[str, bytes | Path], to: Path, *, force: bool) -> list[Path]:
    """Writes files into the folder ``to``, or into an archive where it ends in ``.tar``; answers
    what was written. A timing cache may be called ``NAME.cache``, with ``NAME.lock.json`` beside.

    Raises:
        ConfigError: a file is there already and ``force`` is not given, or the disk refuses.
    """
    archive = to.suffix == ".tar"
    paths = [to] if archive else [to / name for name in files]
    if to.suffix == ".cache" and CACHE in files:
        paths = [to, to.with_suffix(".lock.json")]
    for path in paths:
        if path.exists() and not force:
            raise ConfigError(f"{path} is there already", hint="add --force to replace it")
    try:
        if archive:
            with replaced(to) as file, tarfile.open(fileobj=file, mode="w") as tar:
                for name, content in files.items():
                    _add(tar, name, content)
        else:
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            for path, content in zip(paths, files.values(), strict=True):
                with replaced(path) as file:
                    _copy(content, file)
    except OSError as error:
        raise cannot_write(to, error) from error
    return paths


def read_files(
    path: Path, scratch: Path, here: TacticKey | None = None
) -> list[Tactics | EngineFile]:
    """What a folder, an archive or one of the files holds; of a bundle, its timing caches.

    ``scratch`` is a folder for an archive's files. A timing cache without a lock file is taken to
    be of ``here``, where that is given.

    Raises:
        ConfigError: there is no such file, or it holds nothing of the kind.
        BundleError: something is damaged.
    """
    try:
        if path.is_dir():
            found = _of_folder(path, here=here)
        elif path.is_file() and _is_archive(path):
            found = _of_archive(path, scratch)
        elif path.name in (PLAN, RECORD):
            found = _of_folder(path.parent, only=(PLAN, RECORD))
        else:
            found = [read_tactics(path, here)]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"cannot read {path}: {reason}", hint="check the path") from error
    except tarfile.TarError as error:
        raise _damaged(path, str(error)) from error
    if not found:
        raise ConfigError(
            f"{path} holds neither a timing cache nor an engine of a cache",
            hint="give what trtpack cache export wrote, or a bundle with timing caches",
        )
    return found


def tactics_in(path: Path, here: TacticKey | None = None) -> tuple[Tactics, ...]:
    """The timing caches of what ``read_files`` reads, the first of each key.

    Raises:
        ConfigError: there is no such file, or it has none.
        BundleError: something is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="trtpack-") as scratch:
        items = read_files(path, Path(scratch), here)
    found = {item.key: item for item in reversed(items) if isinstance(item, Tactics)}
    if not found:
        raise ConfigError(
            f"{path} holds an engine, not a timing cache",
            hint="give a timing cache, or a bundle with one",
        )
    return tuple(reversed(found.values()))


def read_tactics(path: Path, here: TacticKey | None = None) -> Tactics:
    """A timing cache with its lock file beside it, either of which may be named; without one it is
    taken to be of ``here``, where that is given.

    Raises:
        ConfigError: one of the two is not there.
        BundleError: they are damaged, or do not belong together.
    """
    stem = path.name.removesuffix(".json").removesuffix(".lock").removesuffix(".cache")
    cache, lock = path.with_name(f"{stem}.cache"), path.with_name(f"{stem}.lock.json")
    if path not in (cache, lock):
        cache = path
    if here is not None and path != lock and cache.is_file() and not lock.is_file():
        return Tactics(here, cache.read_bytes())
    for wanted, what in ((cache, "timing cache"), (lock, "lock file, which says what it is of")):
        if not wanted.is_file():
            raise ConfigError(
                f"there is no {wanted}, the {what}",
                hint="name a timing cache that has its .lock.json beside it, or a bundle",
            )
    try:
        return from_lock(lock.read_bytes(), cache.read_bytes())
    except BundleError as error:
        raise BundleError(
            f"{path}: {error.message}", hint=error.hint, wants=error.wants, has=error.has
        ) from error


def tactics_of_bundle(bundle: Bundle, target: str | None = None) -> dict[str, Tactics]:
    """The timing caches of a bundle's variants by name, or of one variant.

    Raises:
        ConfigError: there is no such variant, or it has none.
        BundleError: one is damaged.
    """
    variants = bundle.manifest.variants
    if target is not None and target not in variants:
        raise unknown_variant(target, list(variants))
    found = {}
    for name, variant in variants.items():
        cache = variant.caches.get("timing")
        if cache is None or target not in (None, name):
            continue
        blob = bytes(bundle.member(cache["member"]))
        if cache.get("lock") is not None:
            found[name] = from_lock(bytes(bundle.member(cache["lock"])), blob)
        else:
            found[name] = Tactics(TacticKey.from_json(cache["key"]), blob)
    if target is not None and not found:
        raise ConfigError(
            f"{bundle.path} has no timing cache for {target}",
            hint="write one into it on the device, with: trtpack finish",
        )
    return found


def _of_folder(
    folder: Path, only: tuple[str, ...] = (CACHE, PLAN), here: TacticKey | None = None
) -> list[Tactics | EngineFile]:
    found: list[Tactics | EngineFile] = []
    if CACHE in only and (folder / CACHE).exists():
        found.append(read_tactics(folder / CACHE, here))
    if PLAN in only and (folder / RECORD).exists():
        found.append(_engine(folder / PLAN, (folder / RECORD).read_bytes()))
    return found


def _is_archive(path: Path) -> bool:
    """Whether a file is a tar archive of something: zeros alone would pass for an empty one."""
    with path.open("rb") as file:
        begins = file.read(1)
    return begins > b"\0" and tarfile.is_tarfile(path)


def _of_archive(path: Path, scratch: Path) -> list[Tactics | EngineFile]:
    found: list[Tactics | EngineFile] = []
    with tarfile.open(path, "r:") as tar:
        names = tar.getnames()
        if _MANIFEST in names[:1]:
            found += tactics_of_bundle(open_bundle(path)).values()
            return found
        for name in (CACHE, LOCK, PLAN, RECORD):
            if name in names:
                with _member(tar, name) as source, (scratch / name).open("wb") as file:
                    while piece := source.read(_CHUNK):
                        file.write(piece)
    if CACHE in names or LOCK in names:
        found.append(read_tactics(scratch / CACHE))
    if RECORD in names:
        found.append(_engine(scratch / PLAN, (scratch / RECORD).read_bytes()))
    return found


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    source = tar.extractfile(name) if tar.getmember(name).isreg() else None
    if source is None:
        raise _damaged(Path(str(tar.name)), f"{name} is no file")
    return source


def _engine(path: Path, described: bytes) -> EngineFile:
    try:
        value = parse(described)
        if value["schema"] != _SCHEMA:
            raise MalformedError(f"its schema is {value['schema']}, this runtime reads {_SCHEMA}")
        key, wanted = str(value["key"]), str(value["sha256"])
        record, about = dict(value["record"]), dict(value["about"])
        seconds = float(value["seconds"])
        if len(key) != 64 or not set(key) <= set("0123456789abcdef"):
            raise MalformedError(f"{key!r} is no key")
    except (MalformedError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path.with_name(RECORD), str(error)) from error
    digest, head, last = hashlib.sha256(), b"", b""
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            head, last = head or piece[:HEAD_BYTES], piece[-1:]
            digest.update(piece)
    if digest.hexdigest() != wanted:
        raise BundleError(
            f"{path} is damaged: wants sha256 {wanted[:12]}, has {digest.hexdigest()[:12]}",
            hint="export it again",
            wants=wanted,
            has=digest.hexdigest(),
        )
    code = refused(path.name, head, last) is not None
    code |= carries_code(EngineRef(str(about.get("kind")), record=record))
    return EngineFile(key, path, record, about, seconds, code)


def _damaged(path: Path, why: str) -> BundleError:
    return BundleError(f"{path} is damaged: {why}", hint="export it again")


def _add(tar: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    """A member without times and owners."""
    info = tarfile.TarInfo(name)
    if isinstance(content, bytes):
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
        return
    with content.open("rb") as file:
        info.size = content.stat().st_size
        tar.addfile(info, file)


def _copy(content: bytes | Path, to: IO[bytes]) -> None:
    if isinstance(content, bytes):
        to.write(content)
        return
    with content.open("rb") as source:
        while piece := source.read(_CHUNK):
            to.write(piece)
