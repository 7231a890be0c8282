# SPDX-License-Identifier: Apache-2.0
"""Writes a timeline that Chrome (``chrome://tracing``) and Perfetto show.

Source: Trace Event Format; complete events (``"ph": "X"``), times in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtpack_runtime.atomic import cannot_write, replaced

_PROCESS = 1


@dataclass(frozen=True)
class Event:
    """Something that took ``duration_ms`` from ``start_ms`` on, in one of the trace's lanes."""

    name: str
    lane: str
    start_ms: float
    duration_ms: float
    details: Mapping[str, Any] = field(default_factory=dict)


def to_json(title: str, events: Sequence[Event]) -> dict[str, Any]:
    """The trace as plain JSON values; lanes stand in the order in which they first occur."""
    lanes = {lane: number for number, lane in enumerate(dict.fromkeys(e.lane for e in events), 1)}
    names = [_named("process_name", 0, name=title)]
    for lane, number in lanes.items():
        names.append(_named("thread_name", number, name=lane))
        names.append(_named("thread_sort_index", number, sort_index=number))
    shown = [
        {
            "ph": "X",
            "name": event.name,
            "cat": "layer",
            "pid": _PROCESS,
            "tid": lanes[event.lane],
            "ts": round(event.start_ms * 1e3, 3),
            "dur": round(event.duration_ms * 1e3, 3),
            "args": dict(event.details),
        }
        for event in events
    ]
    return {"traceEvents": [*names, *shown], "displayTimeUnit": "ms"}


def write(path: Path, title: str, events: Sequence[Event]) -> None:
    """Writes the trace, atomically; ConfigError where the disk refuses."""
    text = json.dumps(to_json(title, events), separators=(",", ":"), allow_nan=False)
    try:
        with replaced(path) as file:
            file.write(text.encode() + b"\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def _named(what: str, lane: int, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": _PROCESS, "tid": lane, "args": args}
