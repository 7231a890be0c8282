# SPDX-License-Identifier: Apache-2.0
"""What the benchmark's parts ``start`` and ``faults`` make of what they measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.runtime import faults, start
from tests.acceptance.runtime.row import Settings


def test_the_import_is_held_against_bare_python() -> None:
    assert start.imported({"python": 20.0, "import": 79.0}).bars[0].holds
    assert not start.imported({"python": 20.0, "import": 81.0}).bars[0].holds


def test_the_wheel_and_what_pip_makes_of_it_are_held_against_the_limit() -> None:
    for packed, unpacked in ((399_999, 400_001), (400_001, 399_999)):
        found = [bar.holds for bar in start.installed(packed, unpacked).bars]
        assert found == [packed < 400_000, unpacked < 400_000]


def test_this_runtime_is_within_the_limit(tmp_path: Path) -> None:
    others = {"import", *(f"{start.MODEL}, {way} start" for way in ("full", "fast"))}
    (row,) = start.rows(Settings("cpu", tmp_path, frozenset(others)))
    assert all(bar.holds for bar in row.bars), row.figures
    assert float(row.figures["unpacked, kB"]) > float(row.figures["wheel, kB"]) > 100


def test_a_start_is_the_median_of_warm_processes() -> None:
    found = [
        {
            "seconds": {"map": seconds, "to the first result": 2 * seconds},
            "memory": {"predicted_bytes": 2 << 20, "measured_bytes": None},
            "kinds": ["tensorrt"],
        }
        for seconds in (9.0, 1.0, 2.0, 3.0)
    ]
    row = start.started("resnet50/1, full start", found)
    assert row.figures == {
        "map, ms": 2000.0,
        "to the first result, ms": 4000.0,
        "predicted, MiB": 2,
    }
    assert "the first process took 18.00 s" in row.notes[0]


@pytest.mark.parametrize(
    ("case", "answer", "holds"),
    [
        ("faulting_kernel", {"error": "DeviceLostError: a kernel failed"}, True),
        ("faulting_kernel", {"error": "DeviceError: TensorRT cannot run"}, False),
        ("faulting_kernel", {"died": "status -11: "}, False),
        (
            "corrupted_header",
            {"failed": {"forward_0": "TensorRT cannot read the engine"}, "after": "right"},
            True,
        ),
        ("corrupted_header", {"failed": {}, "after": "right"}, False),
        ("no_memory_at_run", {"error": "DeviceError: out of memory", "after": "wrong"}, False),
        ("sigterm", {"code": "143", "left": "nothing", "children": "ended"}, True),
        ("sigterm", {"code": "143", "left": "tmp/trtpack-load-1/x", "children": "ended"}, False),
        ("sigterm", {"code": "-9", "left": "nothing", "children": "ended"}, False),
    ],
)
def test_a_fault_has_its_outcome(case: str, answer: dict[str, Any], holds: bool) -> None:
    (bar,) = faults.judged(case, answer).bars
    assert bar.holds == holds
    assert holds or bar.found != "as it should be"


def test_every_fault_is_told_without_a_gpu(tmp_path: Path) -> None:
    found = list(faults.rows(Settings("cpu", tmp_path, done=frozenset({"sigterm"}))))
    assert [row.name for row in found] == [case for case in faults.WANTED if case != "sigterm"]


def test_workers_are_found_by_their_parent(tmp_path: Path) -> None:
    for pid, parent, command in (
        (7, 5, b"python\0-m\0trtpack_runtime.worker"),
        (8, 5, b"sh"),
        (9, 6, b"python\0-m\0trtpack_runtime.worker"),
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a ) b) S {parent} 1")
        (tmp_path / str(pid) / "cmdline").write_bytes(command)
    assert faults.workers_of(5, tmp_path) == [7]
