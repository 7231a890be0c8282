# SPDX-License-Identifier: Apache-2.0
"""Which targets a machine builds for, and which workers of a farm are asked for one."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.packager.machines import ADA, GIB, ORIN, facts, without_gpu
from trtpack.farm.targets import FarmWorker, fit, spellings, targets_of
from trtpack.target import find_target
from trtpack_runtime.errors import ConfigError, DeviceError
from trtpack_runtime.farm import serving

JETSON = facts(
    arch="aarch64", gpus=[ORIN], tensorrt="10.3.0", jetson={"jetpack": "6.2"}, memory={}
) | {"memory": {"total_bytes": 61 * GIB}}
H200_HOST = facts(tensorrt="10.13.3.9")


def worker(name: str, targets: tuple[str, ...], told: dict[str, Any] | None) -> FarmWorker:
    return FarmWorker(f"tcp://{name}:1", name, targets, told, "2026.8.0")


def test_a_jetson_builds_for_itself_alone() -> None:
    assert set(targets_of(JETSON)) >= {"jetson-agx-orin-64gb@jetpack-6.2"}
    assert {key.partition("@")[0] for key in targets_of(JETSON)} == {"jetson-agx-orin-64gb"}
    nano = JETSON | {"memory": {"total_bytes": 8 * GIB}}
    nano["gpus"] = [{**ORIN, "memory_bytes": 8 * GIB}]
    assert "jetson-agx-orin-64gb" not in {key.partition("@")[0] for key in targets_of(nano)}


def test_a_server_is_known_by_the_name_of_its_gpu() -> None:
    assert targets_of(H200_HOST) == ("h200-sxm@tensorrt-10.13",)
    a10 = {**ADA, "name": "NVIDIA A10", "sm": "8.6"}
    assert set(targets_of(facts(gpus=[a10], tensorrt="10.13.3.9"))) == {"a10@tensorrt-10.13"}


def test_rtx_builds_for_all_that_it_serves_without_a_gpu() -> None:
    found = targets_of(without_gpu(tensorrt_rtx="1.7.1.116"))
    assert {"rtx-4090@tensorrt-rtx-1.7", "rtx-5090@tensorrt-rtx-1.7"} <= set(found)
    assert not any("jetson" in key for key in found)
    assert targets_of(without_gpu(tensorrt_rtx=None)) == ()


def test_every_name_of_a_target_is_understood() -> None:
    names = spellings(find_target("orin"))
    assert names[0] == "jetson-agx-orin-64gb@jetpack-6.2"
    assert {"orin", "jetson-agx-orin-64gb", "orin@jetpack-6.2"} <= set(names)
    other = spellings(find_target("orin@jetpack-7.2"))
    assert "orin@jetpack-7.2" in other
    assert "orin" not in other  # that is another stack


def test_workers_that_do_not_fit_are_named_with_the_reason() -> None:
    orin = find_target("orin")
    workers = [
        worker("a", ("orin",), JETSON),
        worker("b", ("orin",), JETSON | {"runtime": "0.0.9"}),
        worker("c", ("orin",), H200_HOST),
        worker("d", ("orin",), None),
        worker("e", ("h200-sxm",), H200_HOST),
    ]
    found = fit(spellings(orin), orin, "tensorrt", workers)
    assert found.resource == "orin"
    assert [w.name for w in found.workers] == ["a"]
    assert found.refused == (
        "worker b has orin but is not asked: it has trtpack-runtime 0.0.9, this host 0.1.0",
        "worker c has orin but is not asked: this machine is x86_64, not aarch64",
        "worker d has orin but is not asked: trtpack farm worker did not start it",
    )


def test_of_two_names_the_one_that_most_workers_have() -> None:
    key = "jetson-agx-orin-64gb@jetpack-6.2"
    workers = [worker("a", ("orin",), JETSON), *(worker(n, (key,), JETSON) for n in "bc")]
    orin, thor = find_target("orin"), find_target("thor")
    assert fit(spellings(orin), orin, "tensorrt", workers).resource == key
    assert fit(spellings(thor), thor, "tensorrt", workers).workers == ()


def test_a_device_without_the_packager_is_told_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "entry_points", lambda group: ())
    with pytest.raises(ConfigError, match="does not know the names of targets") as error:
        serving.named_targets(JETSON)
    assert "--target orin" in error.value.hint


def test_a_machine_that_builds_for_nothing_says_so() -> None:
    with pytest.raises(DeviceError, match="can build engines for no target"):
        serving.named_targets(without_gpu(tensorrt_rtx=None))


def test_what_killed_workers_left_is_dropped_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    for name in (f"trtpack-farm-{dead.pid}-a", f"trtpack-farm-{os.getpid()}-b", "trtpack-farm-c-d"):
        (tmp_path / name / "bundle").mkdir(parents=True)
    serving._sweep()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([f"trtpack-farm-{os.getpid()}-b", "trtpack-farm-c-d"])


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("http://127.0.0.1:80", "bad address"),
        ("tcp://127.0.0.1:1", "connection refused"),
        ("no-such-host.invalid:1", "no scheduler answers"),
    ],
)
def test_a_scheduler_that_does_not_answer_is_told_at_once(address: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        serving.reach(address)
