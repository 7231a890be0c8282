# SPDX-License-Identifier: Apache-2.0
"""The engine kind ``tensorrt``: what fits what."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.engine_records import FACTS, ORIN, on, record
from trtpack_runtime.engines import Verdict, tensorrt
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.engines.tensorrt import can_build, check, cuda_needed
from trtpack_runtime.errors import BundleError


def test_the_record_says_what_the_plan_belongs_to() -> None:
    made = record(ORIN, optimization_level=4, weights="stripped")
    assert made == {
        "tensorrt": "10.3.0",
        "sm": "8.7",
        "device": "Orin",
        "sm_count": 16,
        "jetson": "p3701-0005",
        "cuda": "12.9",
        "driver": "575.51",
        "os": "linux",
        "arch": "aarch64",
        "options": BuildOptions(optimization_level=4, weights="stripped").to_json(),
        "weights": "stripped",
        "refit": True,
    }


NEWER: dict[str, Any] = {"version_compatible": True}
ANY_AMPERE: dict[str, Any] = {"hardware_compatibility": "AMPERE_PLUS"}
L4 = {"name": "NVIDIA L4", "sm": "8.9"}
VERDICTS = [
    (record(), FACTS, Verdict("exact", "built by TensorRT 10.3.0 for NVIDIA H200 (SM 9.0)")),
    (record(), on(tensorrt="10.3.0.26"), "exact"),
    (
        record(),
        on(gpu={"name": "NVIDIA H100"}),
        Verdict(
            "works",
            "built on NVIDIA H200 (SM 9.0), this machine has NVIDIA H100 (SM 9.0); not tuned here",
        ),
    ),
    (
        record(),
        on(gpu={"multiprocessors": 114}),
        Verdict(
            "works",
            "built on NVIDIA H200 (SM 9.0) with 132 multiprocessors, here are 114; not tuned here",
        ),
    ),
    (record(), on(gpu={"multiprocessors": None}), "works"),
    (
        record(),
        on(gpu=L4),
        Verdict(
            "rebuild",
            "built on NVIDIA H200 (SM 9.0), this machine has NVIDIA L4 (SM 8.9)",
        ),
    ),
    (
        record(**ANY_AMPERE),
        on(gpu=L4),
        Verdict("works", "built on NVIDIA H200 (SM 9.0) for Ampere and later, not tuned here"),
    ),
    (record(**ANY_AMPERE), on(gpu={"name": "NVIDIA T4", "sm": "7.5"}), "rebuild"),
    (record(ORIN, **ANY_AMPERE), on(ORIN, gpu={"name": "Thor", "sm": "11.0"}), "rebuild"),
    (record(hardware_compatibility="SAME_COMPUTE_CAPABILITY"), on(gpu=L4), "rebuild"),
    (
        record(hardware_compatibility="SAME_COMPUTE_CAPABILITY"),
        on(gpu={"name": "NVIDIA H100"}),
        "works",
    ),
    (
        record(),
        on(tensorrt="10.4.0"),
        Verdict("rebuild", "built by TensorRT 10.3.0, this machine has 10.4.0"),
    ),
    (
        record(**NEWER),
        on(tensorrt="10.16.2.10"),
        Verdict(
            "works",
            "built by TensorRT 10.3.0, this machine has 10.16.2.10; built to be compatible with it",
        ),
    ),
    (record(**NEWER), on(tensorrt="11.1.0"), "works"),
    (
        record(**NEWER),
        on(tensorrt="10.2.0"),
        Verdict(
            "rebuild",
            "built by TensorRT 10.3.0, this machine has 10.2.0; "
            "a plan is not compatible with an older TensorRT",
        ),
    ),
    (record(on(tensorrt="8.6.2"), **NEWER), on(tensorrt="10.3.0"), "works"),
    (
        record(on(tensorrt="8.6.2"), **NEWER),
        on(tensorrt="11.1.0"),
        Verdict(
            "rebuild",
            "built by TensorRT 8.6.2, this machine has 11.1.0; it is compatible up to 10.x",
        ),
    ),
    (record(**NEWER), on(gpu=L4, tensorrt="10.4.0"), "rebuild"),
    (
        record(),
        on(arch="aarch64"),
        Verdict("rebuild", "built for x86_64, this machine is aarch64"),
    ),
    (record(), on(os="windows"), Verdict("rebuild", "built for linux, this machine is windows")),
    (record(ORIN), ORIN, "exact"),
    (
        record(ORIN),
        on(ORIN, jetson={"module": "p3767-0000"}),
        Verdict("works", "built on p3701-0005, this machine is p3767-0000; not tuned here"),
    ),
    (record(ORIN), on(ORIN, jetson=None), "rebuild"),
    (record(), on(gpus=[]), Verdict("impossible", "there is no NVIDIA GPU")),
    (
        record(),
        on(gpus=[], problems=["cuInit failed with code 999: unknown error"]),
        Verdict("impossible", "cuInit failed with code 999: unknown error"),
    ),
    (record(), on(tensorrt=None), Verdict("impossible", "TensorRT is not installed")),
    (
        record(),
        on(tensorrt="10.13.2.6", driver={"version": "470.1", "cuda": "11.4"}),
        Verdict(
            "impossible",
            "the driver serves CUDA 11.4, TensorRT 10.13.2.6 needs CUDA 12; "
            "update the NVIDIA driver",
        ),
    ),
    (
        record(),
        on(tensorrt_cuda="13"),
        Verdict(
            "impossible",
            "the driver serves CUDA 12.9, TensorRT 10.3.0 needs CUDA 13; update the NVIDIA driver",
        ),
    ),
    (record(), on(driver=None), "exact"),
]


@pytest.mark.parametrize(("made", "facts", "verdict"), VERDICTS)
def test_a_record_is_compared_with_a_machine(
    made: dict[str, Any], facts: dict[str, Any], verdict: Verdict | str
) -> None:
    found = check(made, facts)
    assert (found if isinstance(verdict, Verdict) else found.fit) == verdict


def test_thor_is_one_device_under_both_names_of_its_capability() -> None:
    old = on(ORIN, gpu={"name": "Thor", "sm": "10.1"})
    assert check(record(old), on(ORIN, gpu={"name": "Thor", "sm": "11.0"})).fit == "exact"


@pytest.mark.parametrize("key", ["tensorrt", "sm", "device", "os", "arch", "options"])
@pytest.mark.parametrize("value", [None, 7])
def test_a_record_that_lacks_something_is_told(key: str, value: Any) -> None:
    with pytest.raises(BundleError, match=rf"the record .* has no .*{key}"):
        check(record() | {key: value}, FACTS)


def test_options_this_runtime_does_not_know_do_not_disturb() -> None:
    made = record()
    made["options"] |= {"invented_later": 1}
    del made["options"]["locked"]
    assert check(made, FACTS).fit == "exact"


@pytest.mark.parametrize(
    ("facts", "target", "reason"),
    [
        (FACTS, None, None),
        (FACTS, {"sm": "9.0", "tensorrt": "10.3", "arch": "x86_64"}, None),
        (FACTS, {"sm": "9.0", "tensorrt": (10, 3, 0, 30)}, None),
        (FACTS, {"sm": "8.7"}, "NVIDIA H200 is SM 9.0, not 8.7"),
        (FACTS, {"sm": "8.7", "sm_also": ("9.0",)}, None),
        (FACTS, {"tensorrt": "10.4"}, "this machine has TensorRT 10.3.0, not 10.4"),
        (FACTS, {"arch": "aarch64"}, "this machine is x86_64, not aarch64"),
        (on(gpus=[]), None, "there is no NVIDIA GPU"),
        (on(tensorrt=None), None, "TensorRT is not installed"),
    ],
)
def test_a_machine_that_cannot_build_says_why(
    facts: dict[str, Any], target: dict[str, Any] | None, reason: str | None
) -> None:
    assert can_build(facts, target) == reason


def test_cuda_11_was_served_until_10_13_1() -> None:
    assert [cuda_needed(v) for v in ("8.6.2", "10.13.1", "10.13.2.6", "11.1.0")] == [11, 11, 12, 12]


def test_the_kind_is_known() -> None:
    from trtpack_runtime.engines import engine

    assert engine("tensorrt") is tensorrt
