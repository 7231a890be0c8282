# SPDX-License-Identifier: Apache-2.0
"""What TensorRT's tactic search measured, kept for exactly the devices it is good for.

A timing cache belongs to one TensorRT build on one kind of device; caches are merged only within
one key and never called optimal. The store is never required.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .atomic import replaced
from .checked_json import MalformedError, canonical, parse
from .engine_store import default_folder as engines_folder
from .engine_store import engine_key
from .errors import BundleError

LOCK_SCHEMA = "trtpack.tactics/1"

Combine = Callable[[Sequence[bytes]], bytes]
"""Makes one timing cache of several of one key."""


@dataclass(frozen=True)
class TacticKey:
    """The devices a timing cache is good for; ``module`` is a Jetson's module id."""

    tensorrt: str
    sm: str
    device: str
    sm_count: int | None = None
    module: str | None = None

    @staticmethod
    def of(facts: Mapping[str, Any], tensorrt_version: str | None = None) -> TacticKey:
        """The key of a machine with a GPU."""
        gpu = facts["gpus"][0]
        return TacticKey(
            tensorrt_version or facts["tensorrt"],
            gpu["sm"],
            gpu["name"],
            gpu.get("multiprocessors"),
            (facts.get("jetson") or {}).get("module"),
        )

    @property
    def digest(self) -> str:
        """A name for it: the sha256 of its canonical JSON, in hex."""
        return engine_key(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TacticKey:
        """The inverse of ``to_json``; KeyError where something is missing."""
        return TacticKey(
            value["tensorrt"],
            value["sm"],
            value["device"],
            value.get("sm_count"),
            value.get("module"),
        )


@dataclass(frozen=True)
class Tactics:
    """A timing cache with its key. ``entries`` are readable, None where TensorRT tells none;
    ``provenance`` is what else was so when they were measured, such as the power mode."""

    key: TacticKey
    blob: bytes
    entries: tuple[Mapping[str, Any], ...] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


def to_lock(tactics: Tactics) -> bytes:
    """The readable twin of a timing cache."""
    return canonical(
        {
            "schema": LOCK_SCHEMA,
            "key": tactics.key.to_json(),
            "provenance": dict(tactics.provenance),
            "measured": True,
            "tactics": None if tactics.entries is None else [dict(e) for e in tactics.entries],
        }
    )


def from_lock(data: bytes, blob: bytes = b"") -> Tactics:
    """Reads what ``to_lock`` wrote.

    Raises:
        BundleError: it is something else.
    """
    try:
        value = parse(data)
        entries = value["tactics"]
        return Tactics(
            TacticKey.from_json(value["key"]),
            blob,
            None if entries is None else tuple(dict(entry) for entry in entries),
            dict(value["provenance"]),
        )
    except (MalformedError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"this is no list of tactics: {error}", hint="export it again from its device"
        ) from error


class TacticStore:
    """Timing caches in a folder, one a key."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or engines_folder().parent / "tactics"

    def read(self, key: TacticKey) -> Tactics | None:
        """What is known for a key; None where nothing is, or it is damaged."""
        cache, lock = self._paths(key.digest)
        try:
            found = from_lock(lock.read_bytes(), cache.read_bytes())
        except (OSError, BundleError):
            return None
        return found if found.key == key and found.blob else None

    def put(self, key: TacticKey, tactics: Tactics, combine: Combine | None = None) -> bool:
        """Keeps tactics, together with those there are where ``combine`` is given; whether the disk
        took them. Others of that key are replaced where it is not."""
        if tactics.key != key:
            return False
        cache, lock = self._paths(key.digest)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked(key):
                known = self.read(key)
                if combine is not None and known is not None and known.blob != tactics.blob:
                    tactics = _merged(known, tactics, combine)
                with replaced(cache) as file:
                    file.write(tactics.blob)
                with replaced(lock) as file:
                    file.write(to_lock(tactics))
        except OSError:
            return False
        return True

    def entries(self) -> list[Tactics]:
        """Every cache there is."""
        found = []
        for path in sorted(self.folder.glob("*.lock.json")):
            with contextlib.suppress(OSError, BundleError):
                known = self.read(from_lock(path.read_bytes()).key)
                found += [known] if known is not None else []
        return found

    def kept_at(self, key: TacticKey) -> float | None:
        """When the cache of a key was last written, in seconds of the epoch."""
        try:
            return self._paths(key.digest)[0].stat().st_mtime
        except OSError:
            return None

    def remove(self, key: TacticKey) -> bool:
        """Drops the cache of a key; whether there was one."""
        there = False
        for path in self._paths(key.digest):
            with contextlib.suppress(OSError):
                path.unlink()
                there = True
        return there

    @contextlib.contextmanager
    def _locked(self, key: TacticKey) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                descriptor = os.open(self.folder / f".{key.digest}.lock", os.O_CREAT | os.O_RDWR)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    def _paths(self, digest: str) -> tuple[Path, Path]:
        return self.folder / f"{digest}.cache", self.folder / f"{digest}.lock.json"


def _merged(old: Tactics, new: Tactics, combine: Combine) -> Tactics:
    """Both; of one key's entries those of the new."""
    entries = None
    if old.entries is not None and new.entries is not None:
        by_key = {json.dumps(e.get("key")): e for e in (*old.entries, *new.entries)}
        entries = tuple(by_key[key] for key in sorted(by_key))
    blob = combine([old.blob, new.blob])
    return Tactics(new.key, blob, entries, {**old.provenance, **new.provenance})
