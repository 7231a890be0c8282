# SPDX-License-Identifier: Apache-2.0
"""The acceptance table judges what it should, and its page is that of the stored figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import table
from trtpack_runtime.device import facts
from trtpack_runtime.engines.tensorrt import can_build

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/benchmarks/tensorrt.md"


def row(**latency: float) -> dict[str, Any]:
    times = {"trtpack": 1.0, "eager": 4.0, "reduce_overhead": 2.0} | latency
    return {"kind": "latency", "shape": "1x3", "cosine": 0.9999, "latency_ms": times}


def verdicts(results: dict[str, Any]) -> dict[str, bool]:
    return {bar.text.partition(":")[0]: bar.holds for bar in table.bars(results)}


def test_the_page_is_written_from_the_stored_figures() -> None:
    figures = json.loads(PAGE.with_suffix(".json").read_text())
    assert table.markdown(figures) == PAGE.read_text(), "run scripts/gpu_acceptance --write"


def test_a_row_stays_until_it_is_measured_again_on_the_same_machine() -> None:
    here = {"GPU": "NVIDIA H200", "TensorRT": "8.6.0", "driver": "1"}
    known = table.figures(here, {"a/1": row(), "b/1": row()}, ["a/1", "b/1", "c/1"], known={})
    assert known["missing"] == ["c/1"]
    new = {"c/1": row(), "b/1": {"error": "no memory"}, "a/1": row(eager=9.0)}
    later = table.figures(here | {"driver": "2"}, new, ["a/1", "b/1", "c/1"], known)
    assert later["rows"] == {"a/1": row(eager=9.0), "b/1": row(), "c/1": row()}
    assert list(later["rows"]) == ["a/1", "b/1", "c/1"]
    assert later["missing"] == []
    other = table.figures(here | {"TensorRT": "10.3.0"}, new, ["a/1", "b/1", "c/1"], known)
    assert other["missing"] == ["b/1"]


def test_a_fast_right_model_holds_every_demand() -> None:
    assert set(verdicts({"a/1": row(), "b/1": row()}).values()) == {True}


@pytest.mark.parametrize(
    ("results", "demand"),
    [
        ({"a/1": row() | {"cosine": 0.99}}, "cosine with eager"),
        ({"a/1": row(eager=40.0), "b/1": row(eager=0.9)}, "faster than eager"),
        ({"a/1": row(eager=2.0)}, "geometric mean"),
        ({"a/1": row(), "b/1": row(reduce_overhead=0.9)}, "faster than reduce-overhead"),
        ({"a/1": row(reduce_overhead=0.9, cuda_graph=1.0)}, "faster than reduce-overhead"),
    ],
)
def test_what_falls_short_is_told(results: dict[str, Any], demand: str) -> None:
    failed = [bar.text for bar in table.bars(results) if not bar.holds]
    assert len(failed) == 1
    assert failed[0].startswith(demand)


def test_graphs_are_compared_with_graphs() -> None:
    results = {"a/1": row(trtpack=3.0, cuda_graph=1.0, eager=12.0)}
    assert set(verdicts(results).values()) == {True}


def test_caches_and_dynamic_shapes_are_judged() -> None:
    dynamic = {
        "kind": "dynamic",
        "cosines": {"1": 0.9999, "3": 0.99},
        "latency_ms": {"dynamic": 1.2, "static": 1.0},
    }
    caches = {"kind": "caches", "build_seconds": {"none": 30.0, "tactics": 10.0, "engine": 0.5}}
    assert [bar.holds for bar in table.bars({"d": dynamic, "c": caches})] == [
        False,
        False,
        False,
        True,
    ]
    whole = {"whole_seconds": {"none": 41.0, "tactics": 21.0, "engine": 11.0}}
    assert [bar.found for bar in table.bars({"c": caches | whole})] == [
        "3.0 x (30.0 s to 10.0 s; the whole command 41.0 s to 21.0 s)",
        "0.50 s",
    ]


def test_a_failed_row_is_told_and_not_judged() -> None:
    results = {"a/1": row(), "b/1": {"kind": "latency", "shape": "1x3", "error": "no room"}}
    assert "FAIL  b/1: no room" in table.text(results)
    assert set(verdicts(results).values()) == {True}


def test_engines_of_one_model_stand_beside_each_other() -> None:
    def pair(kind: str, fast: str, slow: str, close: float) -> dict[str, Any]:
        times = {fast: 1.0, slow: 1.5}
        return {"kind": kind, "shape": "32x3", "cosines": {fast: close}, "latency_ms": times}

    results = {
        "a/32 int8": pair("int8", "int8", "fp16", 0.985),
        "a/32 sparse": pair("sparse", "sparse", "dense", 0.9999),
    }
    assert [bar.holds for bar in table.bars(results)] == [False, True]
    shown = table.markdown({"rows": results, "machine": {}, "missing": []})
    assert "| a | 32x3 | int8 | 1.000 ms | fp16 | 1.500 ms | 1.50 x | 0.98500 |" in shown
    assert "| a | 32x3 | sparse | 1.000 ms | dense | 1.500 ms | 1.50 x | 0.99990 |" in shown
    assert "a      32x3   int8    1.000 ms  fp16" in table.text(results)
    assert "sparse" not in table.markdown({"rows": {}, "machine": {}, "missing": []})


def test_a_machine_that_cannot_measure_is_told_at_once(tmp_path: Path) -> None:
    why_not = can_build(facts())
    if why_not is None:
        pytest.skip("this machine can measure")
    command = [sys.executable, ROOT / "scripts/gpu_acceptance", "--folder", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"cannot measure here: {why_not}\n"
    assert not (tmp_path / "out").exists()
