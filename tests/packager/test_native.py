# SPDX-License-Identifier: Apache-2.0
"""``--target native``: a machine's own facts as a target."""

from __future__ import annotations

from typing import Any

import pytest

from tests.packager.machines import ADA, GIB, H200, ORIN, facts
from trtpack.target import Target, catalogue, find_target
from trtpack.target.native import native_target, release_of
from trtpack_runtime.errors import ConfigError, DeviceError


def native(**changes: Any) -> Target:
    known = catalogue()
    return native_target(facts(**changes), known.devices.values(), known.stacks.values())


def test_it_is_the_first_gpu_with_the_tensorrt_that_is_there() -> None:
    target = native()
    assert (target.name, target.engine_kind, target.sm) == ("native", "tensorrt", "9.0")
    assert (target.device, target.memory_bytes) == ("NVIDIA H200", H200["memory_bytes"])
    assert (target.arch, target.cuda, target.python) == ("x86_64", "13.0", "3.12")
    assert (target.has_fp8, target.has_fp4, target.dla_cores) == (True, False, 0)
    assert target.family == catalogue().devices["h200-sxm"].family
    assert target.describe()["tensorrt"] == "8.6.0"


def test_it_knows_whether_it_compiles_what_pytorch_runs() -> None:
    able = {"torch": "2.11.0", "torch_cuda": "13.0", "compiler": {"name": "g++", "version": "13"}}
    assert native(**able).compiles_here
    for lacking in ({"compiler": None}, {"torch_cuda": None}, {"torch": None}):
        assert not native(**{**able, **lacking}).compiles_here
    assert not find_target("h200-sxm").compiles_here


@pytest.mark.parametrize(
    ("version", "has", "lacks"),
    [
        ("8.6.0", "8.6", "8.6.1"),
        ("8.6.1.6", "8.6.1", "10.0"),
        ("10.3.0.26.post1", "10.3", "10.4"),
        ("10.16.1.11", "10.13", "11.0"),
    ],
)
def test_converters_are_told_its_release(version: str, has: str, lacks: str) -> None:
    target = native(tensorrt=version)
    assert target.tensorrt_at_least(has)
    assert not target.tensorrt_at_least(lacks)


def test_a_driver_that_is_too_old_is_told_before_anything_is_built() -> None:
    old = {"driver": {"version": "470.1", "cuda": "11.4"}, "tensorrt": "10.16.2.10"}
    with pytest.raises(DeviceError, match=r"serves CUDA 11\.4, TensorRT .* needs CUDA 12"):
        native(**old)
    known = catalogue().devices.values(), catalogue().stacks.values()
    assert native_target(facts(**old), *known, engine="inductor").engine_kind == "inductor"
    assert native_target(facts(**old), *known, engine="reference").engine_kind == "tensorrt"


def test_tensorrt_rtx_where_there_is_no_other() -> None:
    target = native(gpus=[ADA], tensorrt=None, tensorrt_rtx="1.7.1.116")
    assert (target.engine_kind, target.rtx_capability) == ("tensorrt-rtx", "SM89")
    assert target.tensorrt == (1, 7, 1, 116)
    assert target.tensorrt_at_least("11.0")


@pytest.mark.parametrize(("engine", "tensorrt"), [("inductor", "8.6.0"), ("reference", None)])
def test_pytorch_alone_needs_no_tensorrt(engine: str, tensorrt: str | None) -> None:
    known = catalogue()
    here = facts(tensorrt=tensorrt)
    target = native_target(here, known.devices.values(), known.stacks.values(), engine)
    assert (target.engine_kind, target.tensorrt, target.sm) == ("inductor", None, "9.0")
    assert (target.stack, target.key) == ("inductor", "nvidia-h200@inductor")


def test_a_listed_gpu_may_be_compiled_for_by_pytorch() -> None:
    target = find_target("rtx-4090", "inductor")
    assert (target.engine_kind, target.tensorrt, target.sm) == ("inductor", None, "8.9")
    assert find_target("cpu", "inductor") == find_target("cpu")


def test_a_jetson_has_the_dla_cores_of_its_kind() -> None:
    jetson = {"jetpack": "6.2", "module": "p3701-0005"}
    made = {"gpus": [ORIN], "arch": "aarch64", "tensorrt": "10.3.0.30"}
    target = native(jetson=jetson, **made)
    assert (target.stack, target.dla_cores, target.memory_unified) == ("jetpack-6.2", 2, True)
    assert target.memory_bytes == 61 * GIB
    assert native(jetson=jetson, memory={"total_bytes": 8 * GIB}, **made).dla_cores == 0
    assert native(jetson={"jetpack": "7.2"}, **made).dla_cores == 0


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"gpus": []}, "there is no NVIDIA GPU", "--target cpu"),
        (
            {"gpus": [], "problems": ["cuInit failed with code 999"]},
            "cuInit failed with code 999",
            "--target cpu",
        ),
        ({"tensorrt": None}, r"no TensorRT for NVIDIA H200 \(SM 9\.0\)", "install tensorrt"),
        (
            {"tensorrt": None, "tensorrt_rtx": "1.7.1.116"},
            r"TensorRT-RTX 1\.7\.1\.116 does not run on NVIDIA H200",
            "install tensorrt",
        ),
        ({"tensorrt": "8.4.1"}, r"8\.4\.1 .* older than 8\.6", r"install TensorRT 8\.6"),
    ],
)
def test_what_cannot_be_one_says_why(changes: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        native(**changes)
    assert hint.replace("\\", "") in caught.value.hint


def test_it_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtpack_runtime.device.facts", facts)
    assert find_target("Native") == native()
    assert catalogue().stacks_of(native()) == ("tensorrt-8.6.0",)
    assert catalogue().aliases_of(native()) == ()


def test_it_has_no_other_stack() -> None:
    with pytest.raises(ConfigError, match=r"native has no stack 'jetpack-6\.2'"):
        find_target("native@jetpack-6.2")


def test_a_misspelt_one_is_suggested() -> None:
    with pytest.raises(ConfigError) as caught:
        find_target("nativ")
    assert "did you mean native?" in caught.value.hint


def test_a_release_ends_before_its_suffix() -> None:
    assert release_of("8.6.0rc1") == (8, 6, 0)
