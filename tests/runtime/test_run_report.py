# SPDX-License-Identifier: Apache-2.0
"""What a run found as plain values, held against limits, with a JSON that its page documents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.runtime.run_reports import bench, report, smoke
from trtpack_runtime.errors import SmokeFailure
from trtpack_runtime.limits import LimitCheck
from trtpack_runtime.manifest import Limits
from trtpack_runtime.run_report import MethodRun, check_limits, machine_facts
from trtpack_runtime.vitals import MemoryPeaks

PAGE = Path(__file__).parents[2] / "docs/reference/run-report.md"
FACTS: dict[str, Any] = {
    "os_release": "Ubuntu 22.04", "arch": "aarch64", "python": "3.10.12", "runtime": "0.1.0",
    "cpu": {"model": "Cortex-A78AE"}, "torch": "2.4.0", "tensorrt": "10.3.0", "tensorrt_rtx": None,
    "driver": {"version": "540.4.0", "cuda": "12.6"},
    "gpus": [
        {"index": 0, "name": "Orin", "sm": "8.7", "memory_bytes": 1 << 33, "integrated": True},
        {"index": 1, "name": "A6000", "sm": "8.6", "memory_bytes": 1 << 35, "integrated": False},
    ],
    "jetson": {
        "model": "Jetson Orin NX 16GB", "jetpack": "6.2", "l4t": "36.4.3", "power_mode": "MAXN",
    },
}  # fmt: skip


def test_a_limit_is_held_against_the_figure_asked_for() -> None:
    run = MethodRun("forward", (), bench=bench(10.0))
    memory = MemoryPeaks(900_000_000, True, 500_000_000, "process")
    stored = Limits(max_latency_ms=10.5, max_memory_mb=500)
    p50 = check_limits(run, memory, stored, Limits(), "p50")
    assert [check.passed for check in p50] == [True, True]
    p99, most = check_limits(run, memory, stored, Limits(max_memory_mb=499.9), "p99")
    assert (p99.passed, p99.source) == (False, "bundle")
    assert p99.text() == "p99 10.98 ms, at most 10.5 ms wanted"
    assert (most.passed, most.source) == (False, "command line")
    assert most.text() == "GPU memory 500 MB, at most 499.9 MB wanted"


def test_limits_given_for_the_run_take_the_place_of_the_bundles() -> None:
    run = MethodRun("forward", (), bench=bench(10.0))
    (check,) = check_limits(run, None, Limits(1.0), Limits(20.0), "max")
    assert (check.wants, check.source, check.passed) == (20.0, "command line", True)


def test_what_was_not_measured_is_not_judged() -> None:
    latency, memory = check_limits(
        MethodRun("forward", ()), None, Limits(1.0, 2.0), Limits(), "p99"
    )
    assert (latency.passed, memory.passed) == (None, None)
    assert latency.text() == "p99 not measured, at most 1 ms wanted"
    assert check_limits(MethodRun("forward", ()), None, Limits(), Limits(), "p99") == []


def test_on_a_cpu_the_main_memory_counts() -> None:
    run = MethodRun("forward", ())
    (check,) = check_limits(run, MemoryPeaks(700_000_000), Limits(None, 600), Limits(), "p99")
    assert (check.figure, check.has, check.passed) == ("main memory", 700, False)


def test_failures_come_in_order_and_tell_what_was_wanted() -> None:
    found = report()
    assert found.passed
    assert list(found.failures()) == []
    found.methods[0].smoke = smoke(rel_l2=0.5, failure="relative L2 error 0.5, at most 0.001")
    found.limits = [LimitCheck("forward", "latency", "p99", "ms", 5.0, 11.0, "command line")]
    outputs, latency = found.failures()
    assert "1 of 1 outputs wrong" in outputs.message
    assert latency.message == (
        "forward() exceeds the latency limit of the command line: p99 11 ms, at most 5 ms wanted"
    )
    assert (latency.wants, latency.has, SmokeFailure.exit_code) == (5.0, 11.0, 7)
    assert latency.hint == "see where the time goes with trtpack profile"
    assert not found.passed


def test_a_machine_that_was_throttled_is_the_first_suspect() -> None:
    found = report(full=True)
    found.against = None
    found.limits = [LimitCheck("forward", "latency", "p99", "ms", 5.0, 11.0, "bundle")]
    (latency,) = found.failures()
    assert latency.hint.startswith("the machine was throttled (power cap), ")


def test_the_machine_is_the_device_that_runs() -> None:
    gpu = machine_facts(FACTS, "cuda:1")
    assert (gpu["device"], gpu["sm"], gpu["power_mode"]) == ("A6000", "8.6", "MAXN")
    own = machine_facts(FACTS, "cuda:0")
    assert (own["device"], own["driver"]) == ("Jetson Orin NX 16GB", "540.4.0")
    cpu = machine_facts(FACTS, "cpu")
    assert cpu["device"] == "Cortex-A78AE"
    assert not cpu.keys() & {"sm", "driver", "cuda", "tensorrt_rtx"}
    assert machine_facts({}, "cpu") == {}


def keys(value: Any, path: str = "") -> set[str]:
    """The paths of a report's keys; names that the user or the machine gives are ``*``."""
    if isinstance(value, list):
        return set().union(*(keys(item, f"{path}[]") for item in value))
    if path == "start":
        return {"start.*"}  # the phases of loading, which know themselves what they are
    if not isinstance(value, dict) or not value:
        return {path}
    free = path in (
        "methods",
        "engines",
        "failed_engines",
        "uncompiled",
        "machine",
        "settings",
    ) or (path.endswith((".figures", ".throttled", ".limits")))
    return set().union(
        *(keys(v, f"{path}.{'*' if free else k}".removeprefix(".")) for k, v in value.items())
    )


def test_every_key_is_documented_and_every_documented_key_there() -> None:
    told = set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    found = report(full=True).to_json()
    assert keys(found) == told


UNITS = ("_ms", "bytes", "seconds", "_per_second", "_percent", "_w", "_mhz", "_c")
PURE = {
    *("calls", "items_per_call", "readings", "elements", "differing", "number", "count"),  # counts
    *("probability", "max_abs", "rel_l2", "cosine", "throttled.*"),  # parts and errors
    *("shape[]", "wants", "has", "before", "now"),  # their unit stands beside them
}


def test_units_stand_in_the_names() -> None:
    for path in numbers(report(full=True).to_json()):
        named = re.sub(r"\.(min|mean|max)$", "", path)
        assert named.endswith((*UNITS, *PURE)) or path.startswith("start."), path


def numbers(value: Any, path: str = "") -> set[str]:
    """The paths of a report's numbers."""
    if isinstance(value, dict):
        parent = path.endswith(".throttled")
        below = (numbers(v, f"{path}.{'*' if parent else k}".lstrip(".")) for k, v in value.items())
        return set().union(*below)
    if isinstance(value, list):
        return set().union(*(numbers(item, f"{path}[]") for item in value))
    return {path} if isinstance(value, (int, float)) and not isinstance(value, bool) else set()
