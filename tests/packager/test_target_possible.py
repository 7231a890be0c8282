# SPDX-License-Identifier: Apache-2.0
"""Combinations that cannot be: refused with the fact, where it was read, and when."""

from __future__ import annotations

import re

import pytest

from trtpack.target import catalogue, find_target, unmet
from trtpack_runtime.errors import ConfigError

CITED = re.compile(r"\(source: .+, 20\d\d-\d\d-\d\d\)$")


@pytest.mark.parametrize(
    ("name", "fact", "source"),
    [
        ("orin@jetpack-7.0", "TensorRT 10.13.3 does not serve SM 8.7", "isaac-ros-cli/issues/22"),
        ("orin@jetpack-7.1", "TensorRT 10.13.3 does not serve SM 8.7", "isaac-ros-cli/issues/22"),
        ("jetson-orin-nx-8gb@tensorrt-10.13", "does not serve SM 8.7", "isaac-ros-cli/issues/22"),
        ("orin@tensorrt-11.4", "it is for datacenter, edge, workstation", "10x-to-11x-jetson"),
        ("thor@jetpack-6.2", "it is for jetson-agx-orin-64gb", "jetpack-nixos"),
        ("jetson-t4000@jetpack-7.0", "it is for jetson-agx-thor-t5000", "archive-7.0"),
        ("igx-orin@jetpack-6.2", "it is for jetson devices, this is one of edge", "jetpack-nixos"),
        ("h100@tensorrt-rtx-1.7", "it serves SM 7.5, 8.0", "tensorrt-rtx/latest"),
        ("b200@tensorrt-rtx-1.7", "it serves SM 7.5, 8.0", "tensorrt-rtx/latest"),
        ("gh200@tensorrt-10.16", "it is for x86_64, the device is aarch64", "pip download"),
        ("rtx-4090@jetpack-6.2", "it is for jetson devices", "jetpack-nixos"),
    ],
)
def test_a_stack_that_a_device_cannot_have(name: str, fact: str, source: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_target(name)
    assert fact in caught.value.message
    assert source in caught.value.message
    assert CITED.search(caught.value.message)


@pytest.mark.parametrize(
    ("name", "need", "fact", "source"),
    [
        ("orin", "fp8", "Jetson AGX Orin 64GB (SM 8.7) has no FP8", "Model-Optimizer"),
        ("a100", "fp8", "(SM 8.0) has no FP8", "Model-Optimizer"),
        ("h100", "fp4", "(SM 9.0) has no FP4", "Model-Optimizer"),
        ("thor", "dla", "it has no DLA, which", "work-with-dla"),
        ("orin@jetpack-7.2", "dla", "TensorRT of jetpack-7.2 cannot use its DLA", "work-with-dla"),
        ("jetson-orin-nano-8gb", "dla", "it has no DLA", "jetson_orin_nano_light"),
        ("orin", "tensorrt>=10.8", "jetpack-6.2 has TensorRT 10.3.0.30, older than 10.8", "nixos"),
        ("jetson-orin-nano-4gb", "memory>=8", "Jetson Orin Nano 4GB has 4 GiB", "Seeed"),
    ],
)
def test_a_need_that_a_target_cannot_meet(name: str, need: str, fact: str, source: str) -> None:
    (told,) = unmet(find_target(name), [need], catalogue())
    assert fact in told
    assert source in told
    assert CITED.search(told)


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("thor", ["fp8", "fp4", "tensorrt>=10.8", "memory>=128"]),
        ("orin", ["dla", "tensorrt>=10.3", "memory>=64"]),
        ("l4", ["fp8"]),
        ("rtx-4090", ["tensorrt>=11.0"]),
        ("gh200", ["memory>=1000"]),  # no source says how much it has: not known is not refused
    ],
)
def test_a_need_that_is_met(name: str, needs: list[str]) -> None:
    assert list(unmet(find_target(name), needs, catalogue())) == []


def test_the_cpu_has_no_tensorrt() -> None:
    assert "inductor has no TensorRT" in next(
        unmet(find_target("cpu"), ["tensorrt>=10"], catalogue())
    )


def test_a_misspelt_need_is_no_need() -> None:
    with pytest.raises(ConfigError, match="wanted one of fp8"):
        next(unmet(find_target("cpu"), ["fp16x"], catalogue()))
