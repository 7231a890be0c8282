# SPDX-License-Identifier: Apache-2.0
"""Timelines are what Chrome and Perfetto read: one lane a segment, times in microseconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trtpack_runtime.errors import ConfigError
from trtpack_tools import trace
from trtpack_tools.trace import Event

EVENTS = [
    Event("call 0", "calls", 0.0, 2.0),
    Event("conv + relu", "forward_0 (tensorrt)", 0.5, 0.25, {"modules": ["stem"]}),
    Event("head", "forward_1 (reference)", 0.75, 1.0),
    Event("call 1", "calls", 2.0, 2.0),
]


def test_one_lane_a_segment(tmp_path: Path) -> None:
    trace.write(tmp_path / "trace.json", "resnet", EVENTS)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    lanes = {e["args"]["name"]: e["tid"] for e in events if e["name"] == "thread_name"}
    assert list(lanes) == ["calls", "forward_0 (tensorrt)", "forward_1 (reference)"]
    assert len(set(lanes.values())) == 3
    shown = [e for e in events if e["ph"] == "X"]
    assert [(e["name"], e["tid"]) for e in shown] == [
        ("call 0", lanes["calls"]),
        ("conv + relu", lanes["forward_0 (tensorrt)"]),
        ("head", lanes["forward_1 (reference)"]),
        ("call 1", lanes["calls"]),
    ]
    assert (shown[1]["ts"], shown[1]["dur"]) == (500.0, 250.0)
    assert shown[1]["args"] == {"modules": ["stem"]}
    (process,) = [e for e in events if e["name"] == "process_name"]
    assert process["args"] == {"name": "resnet"}
    assert len({e["pid"] for e in events}) == 1


def test_without_events() -> None:
    assert [e["name"] for e in trace.to_json("empty", [])["traceEvents"]] == ["process_name"]


def test_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write .*there is no folder"):
        trace.write(tmp_path / "absent" / "trace.json", "resnet", EVENTS)
    assert list(tmp_path.iterdir()) == []
