# SPDX-License-Identifier: Apache-2.0
"""What a user's caches hold, by what the user calls it: a key, a file, or a bundle's variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.device_tactics import written
from trtpack_runtime.engine_store import StoredEngine
from trtpack_runtime.errors import BundleError, ConfigError, DeviceError, TrtpackError
from trtpack_runtime.finish import Stores
from trtpack_runtime.spelling import nearest
from trtpack_runtime.tactics import TacticKey, Tactics, check_same_key, merged

from .cache_files import EngineFile, tactics_in, tactics_of_bundle

Item: TypeAlias = "StoredEngine | Tactics"
_SHORT = 12


def key_of(item: Item) -> str:
    """The key of an engine or of a timing cache."""
    return item.key.digest if isinstance(item, Tactics) else item.key


def keys(stores: Stores) -> list[str]:
    """The keys of everything that is cached."""
    engines = [entry.key for entry in stores.engines.entries()]
    return engines + [tactics.key.digest for tactics in stores.tactics.entries()]


def lookup(stores: Stores, key: str) -> Item:
    """What is cached under a key, or the one key that begins so.

    Raises:
        ConfigError: there is none, or several.
    """
    items: list[Item] = [*stores.engines.entries(), *stores.tactics.entries()]
    found = [item for item in items if key and key_of(item).startswith(key.lower())]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(key_of(item)[: max(_SHORT, len(key) + 1)] for item in found[:3])
        raise ConfigError(f"several keys begin with {key}: {shown}", hint="give more of the key")
    short = {key_of(item)[: max(len(key), _SHORT)]: item for item in items}
    near = nearest(key.lower(), short)
    hint = f"did you mean {near[:_SHORT]}? " if near else ""
    raise ConfigError(
        f"nothing is cached under {key}", hint=f"{hint}see all keys with: trtpack cache ls"
    )


def tactics_named(stores: Stores, name: str) -> Tactics:
    """The timing cache of ``FILE``, ``BUNDLE``, ``BUNDLE:TARGET`` or a key.

    Raises:
        ConfigError: there is none, or a bundle has several.
        BundleError: it is damaged.
    """
    path, target = Path(name), None
    if not path.exists() and ":" in name:
        before, _, after = name.rpartition(":")
        if Path(before).is_file():
            path, target = Path(before), after
    if target is not None:
        return tactics_of_bundle(open_bundle(path), target)[target]
    if not path.exists():
        if len(path.parts) > 1 or path.suffix:
            raise ConfigError(f"there is no file {name}", hint="check the path")
        item = lookup(stores, name)
        if isinstance(item, Tactics):
            return item
        raise ConfigError(
            f"{name} is an engine, not a timing cache",
            hint="see the keys of timing caches with: trtpack cache ls",
        )
    found = tactics_in(path)
    if len(found) != 1:
        raise ConfigError(f"{path} holds several timing caches", hint=f"name one as {path}:TARGET")
    return found[0]


def merge(caches: Sequence[Tactics], facts: Mapping[str, Any]) -> Tactics:
    """One timing cache of several of one device; of what several have, the first one's stays.

    Raises:
        ConfigError: they are of several devices.
        DeviceError: this machine is not that device, and only its TensorRT can merge them.
        EngineBuildError: one of them is damaged.
    """
    first, *others = caches
    for other in others:
        check_same_key(other.key, first.key)
    if any(other.blob != first.blob for other in others) or any(c.edited for c in caches):
        _check_can_write(first.key, facts, "merge")
    first, *others = map(written, caches)
    for other in others:
        first = merged(first, other, _combine)
    return first


def store_item(
    item: Tactics | EngineFile,
    stores: Stores,
    facts: Callable[[], Mapping[str, Any]],
    *,
    trust: bool = False,
    instead: bool = False,
) -> bool:
    """Puts what was read from files into its store; whether it was new there.

    A timing cache is merged with the one that is there; with ``instead`` it takes its place. It
    counts as measured once a build here has begun with it.

    Raises:
        BundleError: an engine holds machine code, and ``trust`` is not given.
        ConfigError: the store cannot be written.
        DeviceError: this machine cannot merge the timing caches.
    """
    if isinstance(item, EngineFile):
        return _store_engine(item, stores, trust=trust)
    edited = item.edited
    if edited:
        _check_can_write(item.key, facts(), "edit")
        item = written(item)
    known = stores.tactics.read(item.key)
    if known is not None and known.blob == item.blob:
        return False
    item = replace(item, measured=False)
    if edited and known is not None and not instead:
        item, instead = merged(item, known, _combine), True
    if known is None or instead:
        taken = stores.tactics.put(item.key, item)
    else:
        try:
            _check_can_write(item.key, facts(), "merge")
        except TrtpackError as error:
            raise DeviceError(
                f"another timing cache of {item.key} is there already, and {error.message}",
                hint="add --replace to have this one instead of it",
            ) from error
        taken = stores.tactics.put(item.key, item, _combine)
    if not taken:
        raise _read_only(stores.tactics.folder)
    return True


def _store_engine(item: EngineFile, stores: Stores, *, trust: bool) -> bool:
    if item.carries_code and not trust:
        raise BundleError(
            f"{item.path.name} holds machine code that this machine did not build",
            hint="add --trust if you trust who built it",
        )
    with stores.engines.lock(item.key):
        if stores.engines.get(item.key) is not None:
            return False
        kept = stores.engines.put(
            item.key, item.path, item.record, about=item.about, seconds=item.seconds
        )
    if kept is None:
        raise _read_only(stores.engines.folder)
    return True


def _check_can_write(key: TacticKey, facts: Mapping[str, Any], doing: str) -> None:
    """DeviceError where this machine is not one whose TensorRT writes timing caches of a key."""
    only = f"only TensorRT {key.tensorrt} on such a device can {doing} timing caches"
    instead = {"merge": "take one of them", "edit": "give the files as they were exported"}
    hint = f"do it there, or {instead[doing]}"
    if not facts.get("tensorrt"):
        raise DeviceError(f"{only}, and TensorRT is not installed here", hint=hint)
    if not facts.get("gpus"):
        why = "; ".join(facts.get("problems", ())) or "there is no NVIDIA GPU"
        raise DeviceError(f"{only}: {why}", hint=hint)
    here = TacticKey.of(facts)
    if here != key:
        raise DeviceError(f"{only}: they are of {key}, this machine is {here}", hint=hint)


def _combine(blobs: Sequence[bytes]) -> bytes:
    from trtpack_runtime.engines import _tactics

    return _tactics.combine(blobs)


def _read_only(folder: Path) -> ConfigError:
    return ConfigError(
        f"cannot write to {folder}", hint="free space there, or set XDG_CACHE_HOME to another disk"
    )
