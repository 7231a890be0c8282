# SPDX-License-Identifier: Apache-2.0
"""The timing cache of one build: what tactics are known before it, and what it measured.

Sources: ``NvInfer.h``, ``IBuilderConfig::createTimingCache`` (a cache belongs to the TensorRT and
the GPU that filled it), ``ITimingCache::queryKeys`` (editable caches, from 10.8). TensorRT-RTX has
the calls, but no cache behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trtpack_runtime.errors import EngineBuildError

from ._emit import Emitted
from ._log import Log, log_of
from ._release import is_rtx

_HINT = "build without --locked, or give the timing cache of this GPU and this TensorRT"


def use_tactics(
    emitted: Emitted, config: Any, tactics: bytes | None, *, locked: bool
) -> str | None:
    """Begins with known tactics, or with none. A cache that does not fit is left: what is wrong
    with it is answered, None where nothing is.

    Raises:
        EngineBuildError: ``locked``, and there is no cache that fits.
    """
    if is_rtx(emitted.trt):
        if locked:
            raise EngineBuildError("TensorRT-RTX has no timing cache to lock", hint=_HINT)
        return None
    flag = getattr(emitted.trt.BuilderFlag, "EDITABLE_TIMING_CACHE", None)
    if flag is not None:
        config.set_flag(flag)
    if locked and tactics is None:
        raise EngineBuildError("there is no timing cache for this GPU to lock", hint=_HINT)
    problem = None
    if tactics is not None:
        problem = _taken(emitted, config, tactics, strict=locked)
        if problem is None:
            return None
        if locked:
            raise EngineBuildError(f"the timing cache {problem}", hint=_HINT)
        emitted.log.take("WARNING", f"the timing cache {problem}; measuring anew")
    _taken(emitted, config, b"", strict=False)
    return problem


def _taken(emitted: Emitted, config: Any, tactics: bytes, *, strict: bool) -> str | None:
    """Gives TensorRT a cache; what is wrong with it, None where nothing is."""
    _, problem, said = take_cache(config, emitted.log, tactics, strict=strict)
    if problem is None and said:
        emitted.log.take("WARNING", f"TensorRT took the timing cache, and said: {said}")
    return problem


def take_cache(
    config: Any, log: Log, tactics: bytes, *, strict: bool = False
) -> tuple[Any, str | None, str]:
    """Gives TensorRT a cache: the cache, what is wrong with it (None where nothing is), and what
    TensorRT said of it, which leaves the log's errors.

    TensorRT 8.6 complains of the code generator's part of every cache it wrote itself, and then
    uses the rest: unless ``strict``, what it takes is taken.
    """
    before, problem = len(log.errors), None
    cache = config.create_timing_cache(tactics)
    if cache is None or (strict and len(log.errors) > before):
        problem = "is damaged, or of another TensorRT"
    elif not config.set_timing_cache(cache, False) or (strict and len(log.errors) > before):
        problem = "is of another GPU or another TensorRT"
    said = "; ".join(log.errors[before:])
    del log.errors[before:]
    if problem is not None and said:
        problem = f"{problem} ({said})"
    return cache, problem, said


def is_locked(trt: Any, config: Any) -> bool:
    """Whether a build fails where a tactic is missing from its cache (TensorRT has that from 10.0
    on)."""
    flag = getattr(trt.BuilderFlag, "ERROR_ON_TIMING_CACHE_MISS", None)
    return flag is not None and bool(config.get_flag(flag))


def tactics_of(trt: Any, config: Any) -> bytes | None:
    """The cache as it is after the build; None where this TensorRT has none."""
    if is_rtx(trt):
        return None
    cache = config.get_timing_cache()
    return None if cache is None else bytes(cache.serialize())


def entries_of(trt: Any, config: Any) -> list[dict[str, Any]] | None:
    """What the cache of a build holds, as ``read_entries`` answers it."""
    return None if is_rtx(trt) else read_entries(trt, config.get_timing_cache())


def read_entries(trt: Any, cache: Any) -> list[dict[str, Any]] | None:
    """What an editable cache holds; None where it cannot be read.

    ``key`` and ``tactic`` (a 64-bit hash) are hexadecimal, ``time_ms`` is milliseconds. What this
    process measured has a ``layer`` too: TensorRT names it in its log alone.
    """
    if cache is None or not hasattr(cache, "queryKeys"):
        return None
    layers = log_of(trt).measured
    entries = []
    for key in cache.queryKeys():
        name, value = str(key), cache.query(key)
        entry = {"key": name, "tactic": f"{value.tacticHash:#018x}", "time_ms": value.timingMSec}
        entries.append(entry | ({"layer": layers[name]} if name in layers else {}))
    return sorted(entries, key=lambda entry: str(entry["key"]))


def write_entries(trt: Any, cache: Any, entries: Sequence[Mapping[str, Any]]) -> None:
    """Writes tactics into an editable cache for keys that it has; times and tactics as
    ``read_entries`` answers them.

    Raises:
        EngineBuildError: the cache cannot be edited, lacks a key, or TensorRT refused a tactic.
    """
    if not hasattr(cache, "update"):
        raise EngineBuildError(
            f"TensorRT {trt.__version__} cannot edit timing caches", hint="it can from 10.8 on"
        )
    keys = {str(key): key for key in cache.queryKeys()}
    for entry in entries:
        key = keys.get(entry["key"])
        if key is None:
            raise EngineBuildError(
                f"the timing cache has no key {entry['key']}",
                hint="edit only tactics of keys that TensorRT measured",
            )
        tactic, known = entry["tactic"], cache.query(key)
        try:
            wanted = tactic if isinstance(tactic, int) else int(tactic, 16)
        except ValueError:
            raise EngineBuildError(
                f"{tactic!r} is no tactic of {entry['key']}", hint="write it as 0x and 16 digits"
            ) from None
        time_ms = entry.get("time_ms", known.timingMSec)
        if (known.tacticHash, known.timingMSec) == (wanted, time_ms):
            continue
        if not cache.update(key, trt.TimingCacheValue(wanted, float(time_ms))):
            said = "; ".join(log_of(trt).errors[-1:]) or "it gave no reason"
            raise EngineBuildError(
                f"TensorRT refused the tactic {tactic} of {entry['key']}: {said}",
                hint="choose one that the verbose log of a build lists for this key",
            )
