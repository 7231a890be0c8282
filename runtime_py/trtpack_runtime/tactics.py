# SPDX-License-Identifier: Apache-2.0
"""What TensorRT's tactic search measured, kept for exactly the devices it is good for.

A timing cache belongs to one TensorRT build on one kind of device; caches are merged only within
one key and never called optimal. The store is never required.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .atomic import replaced
from .checked_json import MalformedError, canonical, parse
from .engine_store import engine_key
from .errors import BundleError, ConfigError
from .store_folder import StoreFolder, store_folder

LOCK_SCHEMA = "trtpack.tactics/1"

Combine = Callable[[Sequence[bytes]], bytes]
"""Makes one timing cache of several of one key; of what several have, the first one's stays."""

_SETTLED_S = 3600.0
"""A file that nobody writes any more is older."""


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

    def __str__(self) -> str:
        count = "" if self.sm_count is None else f", {self.sm_count} multiprocessors"
        module = "" if self.module is None else f", module {self.module}"
        return f"{self.device} (SM {self.sm}{count}{module}) with TensorRT {self.tensorrt}"

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
    """A timing cache with its key.

    ``entries`` are readable, ``{"key", "tactic", "time_ms", "layer"}``, None where TensorRT (before
    10.8) tells none; ``layer`` is there where the build that measured it named one. ``provenance``
    is what else was so then, such as the power mode and the clocks. Not ``measured`` is what was
    edited, or came from elsewhere, until a build on the device has begun with it. ``edited`` says
    that entries were changed by hand and the bytes do not have it yet: only TensorRT writes them.
    """

    key: TacticKey
    blob: bytes
    entries: tuple[Mapping[str, Any], ...] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    measured: bool = True
    edited: bool = False


def to_lock(tactics: Tactics) -> bytes:
    """The readable twin of a timing cache: JSON with a line for each tactic.

    Its ``tactics`` may be edited by hand; the digest of them beside the cache's shows it.
    """
    entries = tactics.entries
    cache: dict[str, Any] = {"bytes": len(tactics.blob), "sha256": _sha256(tactics.blob)}
    if entries is not None:
        cache["tactics_sha256"] = None if tactics.edited else _digest(entries)
    head = {
        "schema": LOCK_SCHEMA,
        "key": tactics.key.to_json(),
        "cache": cache,
        "provenance": dict(tactics.provenance),
        "measured": tactics.measured,
    }
    lines = [f'"{name}": {_line(value)},' for name, value in head.items()]
    if entries is None:
        lines.append('"tactics": null')
    else:
        rows = ",\n".join(f"  {_line(entry)}" for entry in entries)
        lines.append(f'"tactics": [\n{rows}\n]' if rows else '"tactics": []')
    return "\n".join(["{", *lines, "}", ""]).encode()


def from_lock(data: bytes, blob: bytes | None = None) -> Tactics:
    """Reads what ``to_lock`` wrote; ``blob`` is the timing cache, b"" in the answer without one.

    Raises:
        BundleError: it is something else, or the twin of another timing cache.
    """
    try:
        value = parse(data)
        entries, told = value["tactics"], value.get("cache") or {}
        read = None if entries is None else tuple(_entry(entry) for entry in entries)
        edited = read is not None and told.get("tactics_sha256", "") not in ("", _digest(read))
        tactics = Tactics(
            TacticKey.from_json(value["key"]),
            blob or b"",
            read,
            dict(value.get("provenance") or {}),
            bool(value.get("measured", True)) and not edited,
            edited,
        )
    except (MalformedError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"this is no list of tactics: {_why(error)}", hint="export it again from its device"
        ) from error
    if blob is not None and told.get("sha256", _sha256(blob)) != _sha256(blob):
        raise BundleError(
            f"the timing cache is damaged: its lock file is of one with {told.get('bytes')} bytes "
            f"and sha256 {str(told['sha256'])[:12]}, it has {len(blob)} and {_sha256(blob)[:12]}",
            hint="export it again from its device",
            wants=told["sha256"],
            has=_sha256(blob),
        )
    return tactics


def check_same_key(first: TacticKey, second: TacticKey) -> None:
    """ConfigError, in words, where tactics of two keys shall be put together or compared."""
    if first == second:
        return
    names = {
        "tensorrt": "TensorRT",
        "sm": "SM",
        "device": "the device",
        "sm_count": "the number of multiprocessors",
        "module": "the Jetson module",
    }
    a, b = first.to_json(), second.to_json()
    other = ", ".join(
        f"{text} is {a[name] or 'unknown'} there, {b[name] or 'unknown'} here"
        for name, text in names.items()
        if a[name] != b[name]
    )
    raise ConfigError(
        f"tactics of {first} are of no use for {second}: {other}",
        hint="take a timing cache that was made on this device by this TensorRT",
    )


def merged(old: Tactics, new: Tactics, combine: Combine) -> Tactics:
    """Both in one; of what both have, that of ``old`` stays, as TensorRT does it.

    Raises:
        ConfigError: they are of two devices.
    """
    check_same_key(old.key, new.key)
    same = old.blob == new.blob
    blob = old.blob if same else combine([old.blob, new.blob])
    measured = old.measured or new.measured if same else old.measured and new.measured
    entries: tuple[Mapping[str, Any], ...] | None = None
    if blob == new.blob:
        entries, measured = named(new.entries, old.entries), measured or new.measured
    elif blob == old.blob:
        entries, measured = named(old.entries, new.entries), old.measured
    elif old.entries is not None and new.entries is not None:
        by_key = {entry["key"]: entry for entry in (*new.entries, *old.entries)}
        entries = tuple(by_key[key] for key in sorted(by_key))
    provenance = {**old.provenance, **new.provenance}
    return Tactics(new.key, blob, entries, provenance, measured)


def named(
    entries: tuple[Mapping[str, Any], ...] | None, known: tuple[Mapping[str, Any], ...] | None
) -> tuple[Mapping[str, Any], ...] | None:
    """Entries with the layers that others know for the same key.

    TensorRT names a layer only in the build that measures it.
    """
    layers = {e["key"]: e["layer"] for e in known or () if e.get("layer")}
    if entries is None or not layers:
        return entries
    return tuple(
        {**e, "layer": layers[e["key"]]} if not e.get("layer") and e["key"] in layers else e
        for e in entries
    )


def _entry(value: Mapping[str, Any]) -> dict[str, Any]:
    entry = dict(value)
    if not isinstance(entry["key"], str) or not isinstance(entry["tactic"], str | int):
        raise TypeError(f"{value!r} is no tactic")
    return entry


def _why(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _digest(entries: Sequence[Mapping[str, Any]]) -> str:
    """The sha256 of what a cache holds of its entries; their layers are only notes."""
    held = [{name: e.get(name) for name in ("key", "tactic", "time_ms")} for e in entries]
    return _sha256(canonical(held))


def _sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


class TacticStore:
    """Timing caches in a folder, one a key."""

    def __init__(self, folder: Path | None = None) -> None:
        self.place = StoreFolder(folder) if folder else store_folder().below("tactics")
        self.folder = self.place.written

    def read(self, key: TacticKey) -> Tactics | None:
        """What is known for a key; None where nothing is, or it is damaged."""
        found = self._read(key)
        if found is None and self._paths(key.digest)[1].exists():
            with self._locked(key):  # it may be written just now
                found = self._read(key)
        return found

    def put(self, key: TacticKey, tactics: Tactics, combine: Combine | None = None) -> bool:
        """Keeps tactics, together with those there are where ``combine`` is given; whether the disk
        took them. Others of that key are replaced where it is not."""
        if tactics.key != key:
            return False
        cache, lock = self._paths(key.digest, new=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked(key):
                known = self._read(key)
                if known is not None and combine is not None:
                    tactics = merged(known, tactics, combine)
                elif known is not None:
                    tactics = replace(tactics, entries=named(tactics.entries, known.entries))
                with replaced(cache) as file:
                    file.write(tactics.blob)
                with replaced(lock) as file:
                    file.write(to_lock(tactics))
        except OSError:
            return False
        return True

    def entries(self) -> list[Tactics]:
        """Every sound cache there is."""
        locks = {p.name: p for f in reversed(self.place.read) for p in f.glob("*.lock.json")}
        found = []
        for _, path in sorted(locks.items()):
            with contextlib.suppress(OSError, BundleError):
                known = self.read(from_lock(path.read_bytes()).key)
                found += [known] if known is not None else []
        return found

    def prune(
        self, limit_bytes: int | None = None, older_than_s: float | None = None
    ) -> list[Tactics]:
        """Drops what was not written for so long, then the oldest until the rest fits, and what is
        damaged; answers the caches that were dropped."""
        surplus = self.surplus(limit_bytes, older_than_s)
        removed = [tactics for tactics in surplus if self.remove(tactics.key)]
        now, sound = time.time(), {tactics.key.digest for tactics in self.entries()}
        for path in (*self.folder.glob("*.cache"), *self.folder.glob("*.lock.json")):
            with contextlib.suppress(OSError):
                if path.name.split(".")[0] not in sound and now - path.stat().st_mtime > _SETTLED_S:
                    path.unlink()
        return removed

    def surplus(
        self, limit_bytes: int | None = None, older_than_s: float | None = None
    ) -> list[Tactics]:
        """The caches that ``prune`` would drop."""
        now, total, found = time.time(), 0, []
        aged = [(now - (self.kept_at(t.key) or now), t) for t in self.entries()]
        for age, tactics in sorted(aged, key=lambda item: item[0]):
            old = older_than_s is not None and age > older_than_s
            if old or (limit_bytes is not None and total + len(tactics.blob) > limit_bytes):
                found.append(tactics)
            else:
                total += len(tactics.blob)
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

    def _read(self, key: TacticKey) -> Tactics | None:
        cache, lock = self._paths(key.digest)
        try:
            found = from_lock(lock.read_bytes(), cache.read_bytes())
        except (OSError, BundleError):
            return None
        return found if found.key == key and found.blob else None

    @contextlib.contextmanager
    def _locked(self, key: TacticKey) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                descriptor = os.open(self.folder / f".{key.digest}.lock", os.O_CREAT | os.O_RDWR)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    def _paths(self, digest: str, *, new: bool = False) -> tuple[Path, Path]:
        """Where a cache is, or with ``new`` would be written."""
        folder = self.folder
        if not new:
            there = (f for f in self.place.read if (f / f"{digest}.lock.json").exists())
            folder = next(there, folder)
        return folder / f"{digest}.cache", folder / f"{digest}.lock.json"
