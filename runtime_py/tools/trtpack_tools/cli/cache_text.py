# SPDX-License-Identifier: Apache-2.0
"""What the caches hold, as text and as plain values."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from trtpack_runtime.cli.text import clean, columns, plural, size, wrapped
from trtpack_runtime.durations import ago, short
from trtpack_runtime.engine_store import StoredEngine
from trtpack_runtime.finish import Stores
from trtpack_runtime.tactic_differences import Difference
from trtpack_runtime.tactics import Tactics

SHORT_KEY = 12
_SHOWN = 20
_BUILDERS = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX", "inductor": "PyTorch"}
_CONDITIONS = {
    "sm_mhz": ("SM clock", "MHz"),
    "memory_mhz": ("memory clock", "MHz"),
    "power_limit_w": ("power limit", "W"),
}
_NOT_RUN = "not yet: edited or imported, and no build here has begun with it since"


def list_text(stores: Stores) -> str:
    """Both caches with sizes and ages, what was used last first."""
    engines, tactics = stores.engines.entries(), stores.tactics.entries()
    now = time.time()
    total, limit = sum(entry.nbytes for entry in engines), stores.engines.limit_bytes
    lines = [f"{plural(len(engines), 'engine')}, {size(total)} of {size(limit)} allowed"]
    lines.append(wrapped(str(stores.engines.folder), first="  in ", rest="     "))
    lines.append(
        columns(
            (
                e.key[:SHORT_KEY],
                size(e.nbytes),
                f"built {ago(now - e.built_at)}",
                f"used {ago(now - e.used_at)}",
                of_text(e),
            )
            for e in engines
        )
    )
    total = sum(len(t.blob) for t in tactics)
    lines.append(f"{plural(len(tactics), 'timing cache')}, {size(total)}")
    lines.append(wrapped(str(stores.tactics.folder), first="  in ", rest="     "))
    lines.append(
        columns(
            (
                t.key.digest[:SHORT_KEY],
                size(len(t.blob)),
                f"written {ago(now - (stores.tactics.kept_at(t.key) or now))}",
                count_text(t),
                str(t.key),
            )
            for t in tactics
        )
    )
    return "\n".join(line for line in lines if line)


def engine_text(entry: StoredEngine) -> str:
    """Everything known of a built engine."""
    now, record = time.time(), entry.record
    rows = [
        ("engine", entry.key),
        ("of", of_text(entry)),
        ("size", size(entry.nbytes)),
        ("built", f"{ago(now - entry.built_at)}, in {short(entry.seconds)}"),
        ("used", ago(now - entry.used_at)),
        ("file", str(entry.path)),
        *((name, _plain(value)) for name, value in record.items() if name != "options"),
        *_options(record.get("options")),
    ]
    return columns(((name, text) for name, text in rows), indent=0)


def tactics_text(tactics: Tactics, stores: Stores, *, everything: bool) -> str:
    """Everything known of a timing cache; the slowest tactics, or all of them."""
    kept = stores.tactics.kept_at(tactics.key)
    rows = [
        ("timing cache", tactics.key.digest),
        ("for", str(tactics.key)),
        ("size", size(len(tactics.blob))),
        *([("written", ago(time.time() - kept))] if kept is not None else []),
        *(_condition(name, value) for name, value in tactics.provenance.items()),
        *([] if tactics.measured else [("run here", _NOT_RUN)]),
        ("tactics", count_text(tactics)),
    ]
    lines = [columns(rows, indent=0)]
    if tactics.entries is None:
        lines.append("TensorRT tells single tactics from 10.8 on; this cache is only bytes")
        return "\n".join(lines)
    entries = sorted(tactics.entries, key=_slowness)
    shown = entries if everything else entries[:_SHOWN]
    lines.append(
        columns(
            (e["key"], str(e["tactic"]), _time(e), str(e.get("layer") or "layer not named"))
            for e in shown
        )
    )
    if len(shown) < len(entries):
        lines.append(f"  and {len(entries) - len(shown)} faster ones, see them with --all")
    return "\n".join(line for line in lines if line)


def _condition(name: str, value: Any) -> tuple[str, str]:
    """What the tactics were measured under: a name and a value with its unit."""
    label, unit = _CONDITIONS.get(name, (name.replace("_", " "), ""))
    return label, f"{_plain(value)} {unit}".rstrip()


def differences_text(first: Tactics, found: Sequence[Difference], *, everything: bool) -> str:
    """How another readable timing cache differs from the first, tactic by tactic."""
    only = [sum(getattr(d, name) is None for d in found) for name in ("second", "first")]
    changed = [d for d in found if d.first is not None and d.second is not None]
    same = len(first.entries or ()) - only[0] - len(changed)
    counts = f"{len(changed)} changed, {only[0]} only in the first, {only[1]} only in the second"
    lines = [f"{plural(same, 'tactic')} the same, {counts}"]
    shown = found if everything else found[:_SHOWN]
    lines.append(
        columns(
            (d.key, _chosen(d.first), "->", _chosen(d.second), d.layer or "layer not named")
            for d in shown
        )
    )
    if len(shown) < len(found):
        lines.append(f"  and {len(found) - len(shown)} more, see them with --all")
    return "\n".join(line for line in lines if line)


def of_text(entry: StoredEngine) -> str:
    """``resnet18 forward_0 for orin: TensorRT 10.3.0 on NVIDIA H200``."""
    about, record = entry.about, entry.record
    kind = str(about.get("kind") or "engine")
    kind = _BUILDERS.get(kind, kind)
    version = record.get("tensorrt") or record.get("tensorrt_rtx") or record.get("torch") or ""
    where = f" on {record['device']}" if record.get("device") else ""
    names = " ".join(str(about[name]) for name in ("model", "segment") if about.get(name))
    target = f" for {about['target']}" if about.get("target") else ""
    return clean(f"{names}{target}: {kind} {version}".rstrip() + where)


def count_text(tactics: Tactics) -> str:
    """``37 tactics``, or that they cannot be read."""
    count = "opaque" if tactics.entries is None else plural(len(tactics.entries), "tactic")
    edited = "" if tactics.measured else ", not run on hardware here"
    return count + edited


def engine_json(entry: StoredEngine) -> dict[str, Any]:
    """A built engine as plain values; times are seconds of the epoch."""
    return {
        "kind": "engine",
        "key": entry.key,
        "bytes": entry.nbytes,
        "built_at": entry.built_at,
        "used_at": entry.used_at,
        "build_seconds": entry.seconds,
        "path": str(entry.path),
        "about": dict(entry.about),
        "record": dict(entry.record),
    }


def tactics_json(tactics: Tactics, written_at: float | None, *, whole: bool) -> dict[str, Any]:
    """A timing cache as plain values; with ``whole`` each tactic, else their number."""
    entries = tactics.entries
    told: Any = None if entries is None else len(entries)
    if whole and entries is not None:
        told = [dict(entry) for entry in entries]
    return {
        "kind": "tactics",
        "key": tactics.key.digest,
        "bytes": len(tactics.blob),
        "written_at": written_at,
        "of": tactics.key.to_json(),
        "provenance": dict(tactics.provenance),
        "measured": tactics.measured,
        "tactics": told,
    }


def _options(options: Any) -> list[tuple[str, str]]:
    """The build options that are not TensorRT's own."""
    if not isinstance(options, Mapping):
        return []
    given = [f"{name} {_plain(value)}" for name, value in options.items() if value]
    return [("options", ", ".join(given) or "TensorRT's own")]


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)


def _slowness(entry: Mapping[str, Any]) -> tuple[float, str]:
    time_ms = entry.get("time_ms")
    return (-float(time_ms) if isinstance(time_ms, int | float) else 0.0, str(entry["key"]))


def _time(entry: Mapping[str, Any]) -> str:
    time_ms = entry.get("time_ms")
    return f"{time_ms:.4g} ms" if isinstance(time_ms, int | float) else ""


def _chosen(entry: Mapping[str, Any] | None) -> str:
    return "none" if entry is None else f"{entry['tactic']} {_time(entry)}".rstrip()
