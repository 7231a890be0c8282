# SPDX-License-Identifier: Apache-2.0
"""Every fact under targets/ is dated, sourced, and as the recorded fact table has it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trtpack.target import catalogue
from trtpack.target.sources import KINDS

FACTS = Path(__file__).parents[1] / "facts" / "targets.json"
SHARED = Path(__file__).parents[3] / "shared" / "facts" / "targets.json"
DEVICE = {
    "sm": "sm",
    "memory_gb": "memory_gib",
    "memory_unified": "memory_unified",
    "has_fp8": "has_fp8",
    "has_fp4": "has_fp4",
    "dla_cores": "dla_cores",
}
PEAK = {
    "memory_bw_gbs": "memory_gbps",
    "fp16_dense_tflops": "fp16_tflops",
    "int8_dense_tops": "int8_tops",
    "fp8_dense_tflops": "fp8_tflops",
    "fp4_dense_tflops": "fp4_tflops",
}
JETPACK = {"cuda": "cuda", "system_python": "python", "dla_through_tensorrt": "dla"}
ASKED_FOR = {
    "orin": "jetpack-6.2",
    "jetson-agx-orin-32gb": "jetpack-6.2",
    "jetson-orin-nx-16gb": "jetpack-6.1",
    "jetson-orin-nx-8gb": "jetpack-6.0",
    "jetson-orin-nano-8gb": "jetpack-7.2",
    "jetson-orin-nano-4gb": "jetpack-6.2",
    "igx-orin": "igx-sw-1.0dp",
    "thor": "jetpack-7.0",
    "jetson-t4000": "jetpack-7.1",
    "spark": "tensorrt-rtx-1.7",
    **dict.fromkeys(("t4", "a10", "a30", "a100", "l4", "l40s", "h100"), "tensorrt-10.16"),
    **dict.fromkeys(("h200", "gh200", "b200", "b300"), "tensorrt-11.4"),
    **dict.fromkeys(("rtx-3090", "rtx-4090", "rtx-5090"), "tensorrt-rtx-1.7"),
    "rtx-pro-6000": "tensorrt-rtx-1.7",
    "cpu": "inductor",
}


def extract(table: dict[str, Any]) -> dict[str, Any]:
    """The part of the fact table that targets/ is held against."""
    device = ("id", *DEVICE, *PEAK)
    jetpack = ("jetpack", "tensorrt", *JETPACK)
    return {
        "targets": [{key: t[key] for key in device} for t in table["targets"]],
        "jetpack": [{key: j[key] for key in jetpack} for j in table["jetpack"]],
    }


RECORDED = json.loads(FACTS.read_text())


@pytest.mark.skipif(not SHARED.is_file(), reason="the whole fact table is not beside this clone")
def test_the_recorded_facts_are_those_of_the_table() -> None:
    assert extract(json.loads(SHARED.read_text())) == RECORDED


@pytest.mark.parametrize("row", RECORDED["targets"], ids=lambda row: row["id"])
def test_a_device_is_as_the_table_says(row: dict[str, Any]) -> None:
    device = catalogue().devices[row["id"]]
    assert {key: getattr(device, ours) for key, ours in DEVICE.items()} == {
        key: row[key] for key in DEVICE
    }
    assert {key: getattr(device.peak, ours) for key, ours in PEAK.items()} == {
        key: row[key] for key in PEAK
    }


@pytest.mark.parametrize(
    "row",
    [row for row in RECORDED["jetpack"] if f"jetpack-{row['jetpack']}" in catalogue().stacks],
    ids=lambda row: row["jetpack"],
)
def test_a_jetpack_is_as_the_table_says(row: dict[str, Any]) -> None:
    stack = catalogue().stacks[f"jetpack-{row['jetpack']}"]
    assert ".".join(map(str, stack.tensorrt or ())) == row["tensorrt"]
    assert {key: getattr(stack, ours) for key, ours in JETPACK.items()} == {
        key: row[key] for key in JETPACK
    }


@pytest.mark.parametrize(("name", "stack"), ASKED_FOR.items())
def test_what_people_have_is_there(name: str, stack: str) -> None:
    assert catalogue().find(f"{name}@{stack}").stack == stack


def test_which_stacks_there_are() -> None:
    jetpacks = {
        f"jetpack-{v}" for v in ("6.0", "6.1", "6.2", "6.2.1", "6.2.2", "7.0", "7.1", "7.2")
    }
    servers = {"tensorrt-10.13", "tensorrt-10.16", "tensorrt-11.4", "tensorrt-rtx-1.7"}
    assert set(catalogue().stacks) == jetpacks | servers | {"inductor", "igx-sw-1.0dp"}


def cited() -> Iterator[str]:
    known = catalogue()
    for owner in (*known.devices.values(), *known.stacks.values()):
        for ids in owner.sources.values():
            yield from ids


def test_every_fact_can_be_looked_up_and_has_a_date() -> None:
    known = catalogue()
    for id in cited():
        source = known.sources[id]
        assert source.kind in KINDS
        assert isinstance(source.noted, datetime.date)
        assert source.noted >= datetime.date(2026, 1, 1)
        assert source.kind != "vendor" or source.address.startswith("https://")


def test_no_source_is_there_for_nothing() -> None:
    assert set(catalogue().sources) - set(cited()) <= {"cc-copy", "trt-dla-11.4.1"}
