# SPDX-License-Identifier: Apache-2.0
"""The engine kind ``tensorrt-rtx``: what a record says, and what fits what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runtime.build_jobs import MODULE, chain
from trtpack_runtime.engines import Verdict, tensorrt_rtx
from trtpack_runtime.engines._child import BuildJob


@pytest.fixture
def job(tmp_path: Path) -> BuildJob:
    return chain(tmp_path)


RECORD = {
    "tensorrt_rtx": "1.7.1.116",
    "compute_capabilities": ["SM89"],
    "os": "linux",
    "arch": "x86_64",
    "options": {},
}
ADA = {"name": "NVIDIA GeForce RTX 4090", "sm": "8.9"}
FACTS: dict[str, Any] = {
    "os": "linux",
    "arch": "x86_64",
    "tensorrt_rtx": "1.7.1.116",
    "gpus": [ADA],
    "problems": [],
}


def test_the_record_says_what_the_plan_is_for(job: BuildJob) -> None:
    clauses: list[str] = []
    lines: list[str] = []
    record = tensorrt_rtx.build(
        job.network,
        job.plan.parent / "weights.safetensors",
        job.plan,
        compute_capabilities=("SM89", "SM120"),
        optimization_level=0,
        on_progress=clauses.append,
        on_log=lines.append,
    )
    assert job.plan.exists()
    assert record["compute_capabilities"] == ["SM89", "SM120"]
    assert record["options"]["optimization_level"] == 0
    assert set(record["memory"]) == {"weights_bytes", "context_bytes"}
    assert clauses
    assert all(" " in clause and "/" in clause for clause in clauses)
    assert not any(line.startswith("VERBOSE") for line in lines)
    facts = FACTS | {key: record[key] for key in ("tensorrt_rtx", "os", "arch")}
    assert tensorrt_rtx.check(record, facts).fit == "exact"


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (FACTS, Verdict("exact", "built by TensorRT-RTX 1.7.1.116 for SM89")),
        (FACTS | {"gpus": []}, Verdict("impossible", "there is no NVIDIA GPU")),
        (
            FACTS | {"gpus": [], "problems": ["the driver is too old"]},
            Verdict("impossible", "the driver is too old"),
        ),
        (
            FACTS | {"gpus": [{"name": "NVIDIA H200", "sm": "9.0"}]},
            Verdict("impossible", "TensorRT-RTX does not run on NVIDIA H200 (SM 9.0)"),
        ),
        (
            FACTS | {"tensorrt_rtx": None},
            Verdict("impossible", "TensorRT-RTX is not installed"),
        ),
        (
            FACTS | {"arch": "aarch64"},
            Verdict("rebuild", "built for x86_64, this machine is aarch64"),
        ),
        (
            FACTS | {"gpus": [ADA | {"sm": "12.0"}]},
            Verdict("rebuild", "built for SM89, NVIDIA GeForce RTX 4090 is SM120"),
        ),
        (
            FACTS | {"tensorrt_rtx": "1.8.0.1"},
            Verdict("rebuild", "built by TensorRT-RTX 1.7.1.116, this machine has 1.8.0.1"),
        ),
    ],
)
def test_a_record_is_compared_with_a_machine(facts: dict[str, Any], verdict: Verdict) -> None:
    assert tensorrt_rtx.check(RECORD, facts) == verdict


def test_capabilities_are_those_tensorrt_names() -> None:
    trt = pytest.importorskip(MODULE, reason="TensorRT-RTX is not installed here")
    named = {name for name in trt.ComputeCapability.__members__ if name.startswith("SM")}
    assert set(tensorrt_rtx.CAPABILITIES.values()) == named
