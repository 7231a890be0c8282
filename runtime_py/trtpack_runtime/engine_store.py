# SPDX-License-Identifier: Apache-2.0
"""Built engines in a folder of the user, addressed by everything an engine depends on.

It is never required: where its disk is full, an engine is built again; ``store_folder.py`` says
where it is, on a read-only disk too. Entries are two files, ``<key>.engine`` and ``<key>.json``
beside it, written whole under a lock. What is used least is dropped where the folder grows too
large.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .atomic import replaced
from .network import Network
from .store_folder import (
    StoreFolder,
    fair_limit_bytes,
    free_bytes,
    limit_variable_bytes,
    store_folder,
)

_CHUNK = 1 << 20
_MARGIN_BYTES = 64 << 20
_REFUSAL_S = 7 * 86400.0
"""How long a refusal is believed."""

_SETTLED_S = 3600.0
"""A file that nobody writes any more is older."""


@dataclass(frozen=True)
class StoredEngine:
    """An engine's file with its compatibility record; times are seconds of the epoch.

    ``seconds`` is how long its build took; ``about`` says for people what it is of.
    """

    key: str
    path: Path
    record: Mapping[str, Any]
    built_at: float
    used_at: float
    nbytes: int
    seconds: float
    about: Mapping[str, Any]


def content_of(network: Network, digests: Mapping[str, str]) -> str:
    """The sha256 of what an engine computes: its network, and the stored tensors that reads.

    ``digests`` are their sha256 by stored name; others in it do not count.
    """
    read = {constant.data for constant in network.constants.values()}
    return engine_key(
        {
            "network": network.digest(),
            "weights": {name: digest for name, digest in digests.items() if name in read},
        }
    )


def engine_key(parts: Mapping[str, Any]) -> str:
    """The sha256 of what an engine depends on, as canonical JSON, in hex."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def tensorrt_parts(
    content: str, options: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What an engine of TensorRT depends on when the machine of ``facts`` builds it."""
    gpu = facts["gpus"][0]
    return {
        "kind": "tensorrt",
        "content": content,
        "options": dict(options),
        "sm": gpu["sm"],
        "device": gpu["name"],
        "sm_count": gpu.get("multiprocessors"),
        "module": (facts.get("jetson") or {}).get("module"),
        "tensorrt": facts["tensorrt"],
        "driver": (facts.get("driver") or {}).get("version"),
        "emitter": facts["runtime"],
        "machine": [facts["os"], facts["arch"]],
    }


class EngineStore:
    """The engines of one folder, by default the user's; safe for several processes at once.

    Args:
        folder: where they are; one that is given has no other in its place.
        limit_bytes: what they may take in all; None leaves it to ``$TRTPACK_STORE_LIMIT``, and
            where that is not set to the disk (``store_folder.fair_limit_bytes``).

    Raises:
        ConfigError: ``$TRTPACK_STORE_LIMIT`` is no size.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        place = StoreFolder(folder) if folder else store_folder().below("engines")
        self.place, self.folder = place, place.written
        self._limit = limit_variable_bytes() if limit_bytes is None else limit_bytes
        self._sound: set[tuple[str, int, int]] = set()

    @property
    def limit_bytes(self) -> int:
        """What the engines may take in all."""
        if self._limit is not None:
            return self._limit
        return fair_limit_bytes(self.folder, sum(e.nbytes for e in self._removable()))

    def get(self, key: str) -> StoredEngine | None:
        """The engine of a key and marks it as used; None where there is none. What is damaged is
        dropped."""
        found = self._read(key, whole=True)
        if found is not None:
            with contextlib.suppress(OSError):
                os.utime(found.path)
        return found

    def put(
        self,
        key: str,
        engine: Path,
        record: Mapping[str, Any],
        *,
        about: Mapping[str, Any],
        seconds: float,
    ) -> StoredEngine | None:
        """Keeps a copy of an engine's file; None where the disk refuses."""
        path, beside = self._paths(key, new=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(engine.stat().st_size)
            beside.unlink(missing_ok=True)  # none reads a new engine with an old record
            with engine.open("rb") as source, replaced(path) as file:
                size, digest = _copied(source, file)
            kept = {
                "record": dict(record),
                "size": size,
                "sha256": digest,
                "built_at": time.time(),
                "seconds": seconds,
                "about": dict(about),
            }
            with replaced(beside) as file:
                file.write(json.dumps(kept, sort_keys=True).encode())
        except OSError:
            self.remove(key)
            return None
        self.prune(self.limit_bytes, keep=key)
        return self._read(key)

    def refuse(self, key: str, reason: str) -> None:
        """Remembers for a week why the engine of a key cannot be built."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with replaced(self.folder / f"{key}.refused") as file:
                file.write(reason.encode())

    def refused(self, key: str) -> str | None:
        """Why the engine of a key could not be built when that was tried; None where it was not."""
        for folder in self.place.read:
            path = folder / f"{key}.refused"
            with contextlib.suppress(OSError, UnicodeDecodeError):
                if time.time() - path.stat().st_mtime < _REFUSAL_S:
                    return path.read_text(encoding="utf-8")
        return None

    def find(self, beginning: str) -> list[StoredEngine]:
        """The engines whose keys begin so."""
        return [entry for entry in self.entries() if entry.key.startswith(beginning)]

    def entries(self) -> list[StoredEngine]:
        """Every sound engine, the one used last first."""
        keys: set[str] = set()
        for folder in self.place.read:
            with contextlib.suppress(OSError):
                keys.update(path.stem for path in folder.glob("*.json"))
        found = [entry for key in sorted(keys) if (entry := self._read(key)) is not None]
        return sorted(found, key=lambda entry: -entry.used_at)

    def remove(self, key: str) -> bool:
        """Drops an engine; whether it was there."""
        there = False
        for path in self._paths(key):
            with contextlib.suppress(OSError):
                path.unlink()
                there = True
        return there

    def prune(
        self,
        limit_bytes: int | None = None,
        older_than_s: float | None = None,
        keep: str | None = None,
    ) -> list[StoredEngine]:
        """Drops what was not used for so long, then what is used least until the rest fits, and
        what builds that died left; answers the engines that were dropped. ``keep`` stays."""
        surplus = self.surplus(limit_bytes, older_than_s, keep)
        removed = [entry for entry in surplus if self.remove(entry.key)]
        self._sweep(time.time())
        return removed

    def surplus(
        self,
        limit_bytes: int | None = None,
        older_than_s: float | None = None,
        keep: str | None = None,
    ) -> list[StoredEngine]:
        """The engines that ``prune`` would drop."""
        now, total, found = time.time(), 0, []
        for entry in self._removable():
            old = older_than_s is not None and now - entry.used_at > older_than_s
            large = limit_bytes is not None and total + entry.nbytes > limit_bytes
            if (old or large) and entry.key != keep:
                found.append(entry)
            else:
                total += entry.nbytes
        return found

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Holds the lock of a key; without one where the system or the disk has none."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                self.folder.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((self.folder / f".{key}.lock").open("ab"))
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self, key: str, *, whole: bool = False) -> StoredEngine | None:
        """An entry whose size is right, and with ``whole`` its digest; drops a damaged one."""
        path, beside = self._paths(key)
        text = b""
        try:
            text = beside.read_bytes()
            kept = json.loads(text)
            status = path.stat()
            entry = StoredEngine(
                key,
                path,
                dict(kept["record"]),
                float(kept["built_at"]),
                status.st_mtime,
                status.st_size,
                float(kept["seconds"]),
                dict(kept["about"]),
            )
            sized = status.st_size == kept["size"] and status.st_size > 0
            if sized and (not whole or self._is_sound(entry, status.st_ino, kept["sha256"])):
                return entry
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        with contextlib.suppress(OSError):
            if beside.read_bytes() == text:  # else it was written anew meanwhile
                self.remove(key)
        return None

    def _is_sound(self, entry: StoredEngine, inode: int, digest: str) -> bool:
        """Whether an engine's bytes are those that were put; looked at once a process."""
        known = (entry.key, inode, entry.nbytes)
        if known not in self._sound:
            with entry.path.open("rb") as file:
                if _copied(file, None)[1] != digest:
                    return False
            self._sound.add(known)
        return True

    def _sweep(self, now: float) -> None:
        """Drops engines without a record, files that were never finished, old refusals."""
        with contextlib.suppress(OSError):
            for path in (*self.folder.glob("*.engine"), *self.folder.glob(".*.partial")):
                lone = path.suffix == ".partial" or not path.with_suffix(".json").exists()
                if lone and now - path.stat().st_mtime > _SETTLED_S:
                    path.unlink()
            for path in self.folder.glob("*.refused"):
                if now - path.stat().st_mtime > _REFUSAL_S:
                    path.unlink()

    def _removable(self) -> list[StoredEngine]:
        """The engines that are not on a disk that cannot be written."""
        return [entry for entry in self.entries() if entry.path.parent == self.folder]

    def _make_room(self, nbytes: int) -> None:
        """Drops what is used least where the disk has no room for one more engine."""
        free = free_bytes(self.folder)
        if free is not None and free < nbytes + _MARGIN_BYTES:
            taken = sum(entry.nbytes for entry in self._removable())
            self.prune(max(taken - (nbytes + _MARGIN_BYTES - free), 0))

    def _paths(self, key: str, *, new: bool = False) -> tuple[Path, Path]:
        """Where an engine is, or with ``new`` would be written."""
        folder = self.folder
        if not new:
            folder = next((f for f in self.place.read if (f / f"{key}.json").exists()), folder)
        return folder / f"{key}.engine", folder / f"{key}.json"


def _copied(source: BinaryIO, to: BinaryIO | None) -> tuple[int, str]:
    """Copies a file, or only reads it; its size and sha256."""
    digest, size = hashlib.sha256(), 0
    while piece := source.read(_CHUNK):
        digest.update(piece)
        size += len(piece)
        if to is not None:
            to.write(piece)
    return size, digest.hexdigest()
