# SPDX-License-Identifier: Apache-2.0
"""Engines leave a bundle byte for byte, as files and as a model of Triton."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runtime import handmade, planned
from tests.runtime.command import trtpack
from tests.tools.test_inspect_engine import rtx_plan
from trtpack_runtime import network as networks
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.dims import dim
from trtpack_runtime.errors import BundleError, ConfigError
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_tools import triton
from trtpack_tools.extract import extract_plans, extract_triton
from trtpack_tools.recorder import Recorder


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "some.plan"
    path.write_bytes(bytes(range(256)) * 5)
    return path


@pytest.fixture
def deep(tmp_path: Path, plan: Path) -> Path:
    return planned.write_deep(tmp_path / "deep.tar", plan=plan, **planned.RECORD)


def test_a_real_plan_keeps_its_bytes(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    built = rtx_plan(tmp_path)
    path = planned.write_deep(tmp_path / "deep.tar", "tensorrt-rtx", built)
    (file,) = extract_plans(open_bundle(path), tmp_path / "out")
    assert file.path == tmp_path / "out" / "here" / "forward_0.plan"
    assert file.path.read_bytes() == built.read_bytes()
    assert file.sha256 == open_bundle(path).entries["engines/here/forward_0.plan"].sha256
    assert file.sha256 == hashlib.sha256(built.read_bytes()).hexdigest()


def test_networks_and_weights(deep: Path, tmp_path: Path) -> None:
    written = extract_plans(open_bundle(deep), tmp_path / "out", networks=True)
    assert [str(f.path.relative_to(tmp_path / "out")) for f in written] == [
        "here/forward_0.plan",
        "here/forward_0.json",
        "other/forward_0.json",
        "weights/0.safetensors",
    ]
    for file in written:
        assert file.member is not None
        content = file.path.read_bytes()
        assert content == bytes(open_bundle(deep).member(file.member))
        assert hashlib.sha256(content).hexdigest() == file.sha256
    network = networks.from_bytes((tmp_path / "out/here/forward_0.json").read_bytes())
    assert network == planned.deep()[0]


def test_existing_files_stay(deep: Path, tmp_path: Path) -> None:
    there = tmp_path / "out" / "weights" / "0.safetensors"
    there.parent.mkdir(parents=True)
    there.write_text("mine")
    bundle = open_bundle(deep)
    with pytest.raises(ConfigError, match="exists already") as refused:
        extract_plans(bundle, tmp_path / "out", networks=True)
    assert "--force" in refused.value.hint
    assert there.read_text() == "mine"
    assert not (tmp_path / "out" / "here").exists()
    extract_plans(bundle, tmp_path / "out", networks=True, force=True)
    assert there.read_bytes() == bytes(bundle.member("weights/0.safetensors"))


def test_stripped_engines_are_said_to_be(tmp_path: Path, plan: Path) -> None:
    record = {**planned.RECORD, "weights": "stripped", "refit": True}
    path = planned.write_deep(tmp_path / "deep.tar", plan=plan, **record)
    done = trtpack("extract", path, "-o", tmp_path / "out")
    assert done.code == 0
    assert "stripped of its weights" in done.out
    assert "refit it from the bundle's weights before it runs" in " ".join(done.out.split())
    with pytest.raises(BundleError, match="has no weights of its own"):
        extract_triton(open_bundle(path), tmp_path / "models", target="here")


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--target", "other"], 5, "there is no TensorRT engine to take out; forward_0 of other"),
        (["--target", "elsewhere"], 2, "the bundle has no variant 'elsewhere'"),
        (["--segment", "forward_7"], 2, "there is no segment 'forward_7'"),
        (["--triton", "--segment", "forward_0"], 2, "--triton takes a whole variant"),
        (["--triton", "--target", "other"], 5, "forward_0 of other has no engine yet"),
        (["--name", "x"], 2, "--name is for --triton"),
    ],
)
def test_what_cannot_be_extracted(
    arguments: Sequence[str], code: int, error: str, deep: Path, tmp_path: Path
) -> None:
    done = trtpack("extract", deep, "-o", tmp_path / "out", *arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"error: {error}")
    assert not (tmp_path / "out").exists()


def test_for_programs(deep: Path, tmp_path: Path, plan: Path) -> None:
    done = trtpack("extract", deep, "-o", tmp_path / "out", "--json")
    (file,) = json.loads(done.out)
    assert file == {
        "path": str(tmp_path / "out/here/forward_0.plan"),
        "member": "engines/here/forward_0.plan",
        "bytes": 1280,
        "sha256": hashlib.sha256(plan.read_bytes()).hexdigest(),
        "stripped": False,
    }


def test_a_model_repository(deep: Path, tmp_path: Path, plan: Path) -> None:
    done = trtpack("extract", deep, "--triton", "-o", tmp_path / "models")
    assert (done.code, done.err) == (0, "")
    at = tmp_path / "models" / "deep_model"
    assert (at / "1" / "model.plan").read_bytes() == plan.read_bytes()
    assert (
        (at / "config.pbtxt").read_text()
        == """\
# TensorRT 10.3.0, Orin
name: "deep_model"
platform: "tensorrt_plan"
max_batch_size: 8
input [
  { name: "x", data_type: TYPE_FP16, dims: [ 8 ] }
]
output [
  { name: "blocks.5.act/relu", data_type: TYPE_FP16, dims: [ 8 ] }
]
"""
    )


def identity(*inputs: Tensor, profiles: Sequence[Profile] = ()) -> Network:
    recorder = Recorder()
    outputs = []
    for tensor in inputs:
        recorder.input(tensor)
        (out,) = recorder.add("identity", {"input": tensor}, {}, name=f"out_{tensor.name}")
        outputs.append(out.name)
    return recorder.finish(outputs, profiles)


B = dim("a", 0)
RANGE = ((1, 3), (2, 3), (4, 3))


@pytest.mark.parametrize(
    ("network", "batch", "dims"),
    [
        (identity(Tensor("a", "FLOAT", (2, 3))), 0, "[ 2, 3 ]"),
        (identity(Tensor("a", "FLOAT", (B, 3)), profiles=[Profile({"a": RANGE})]), 4, "[ 3 ]"),
        (
            identity(
                Tensor("a", "FLOAT", (B, 3)),
                profiles=[Profile({"a": ((2, 3), (2, 3), (4, 3))})],
            ),
            0,
            "[ -1, 3 ]",
        ),
        (
            identity(
                Tensor("a", "FLOAT", (B, 3)),
                profiles=[
                    Profile({"a": ((1, 3), (1, 3), (1, 3))}),
                    Profile({"a": ((1, 3), (8, 3), (16, 3))}),
                ],
            ),
            16,
            "[ 3 ]",
        ),
        (
            identity(
                Tensor("a", "FLOAT", (B, 3)),
                Tensor("b", "FLOAT", (dim("b", 0), 3)),
                profiles=[Profile({"a": RANGE, "b": RANGE})],
            ),
            0,
            "[ -1, 3 ]",
        ),
        (
            identity(
                Tensor("a", "FLOAT", (B, 3)),
                Tensor("b", "FLOAT", (7,)),
                profiles=[Profile({"a": RANGE})],
            ),
            0,
            "[ -1, 3 ]",
        ),
    ],
    ids=["static", "batch", "from 2", "two profiles", "two sizes", "one fixed"],
)
def test_largest_batch(network: Network, batch: int, dims: str) -> None:
    text = triton.config("m", network, planned.RECORD)
    assert f"max_batch_size: {batch}\n" in text
    assert f'{{ name: "a", data_type: TYPE_FP32, dims: {dims} }}' in text
    assert ("profile:" in text) == (len(network.profiles) > 1)


@pytest.mark.parametrize(
    ("batches", "most", "served"),
    [
        ([(1, 32), (1, 1)], 32, (0,)),
        ([(1, 32), (8, 32)], 32, (0,)),
        ([(1, 8), (1, 16), (1, 16)], 16, (1, 2)),
        ([(2, 8), (4, 8)], 0, (0, 1)),
    ],
)
def test_triton_is_given_the_profiles_that_take_its_largest_batch(
    batches: Sequence[tuple[int, int]], most: int, served: tuple[int, ...]
) -> None:
    profiles = [Profile({"a": ((low, 3), (low, 3), (high, 3))}) for low, high in batches]
    network = identity(Tensor("a", "FLOAT", (B, 3)), profiles=profiles)
    assert triton.batching(network) == (most, served)
    listed = ", ".join(f'"{number}"' for number in served)
    assert f"profile: [ {listed} ]" in triton.config("m", network, planned.RECORD)


def test_types_and_scalars() -> None:
    network = identity(Tensor("ids", "INT64", (2,)), Tensor("flag", "BOOL", ()))
    new = triton.config("m", network, planned.RECORD)
    assert '{ name: "ids", data_type: TYPE_INT64, dims: [ 2 ] },' in new
    assert "TYPE_BOOL, dims: [ 1 ], reshape: { shape: [ ] } }" in new
    old = triton.config("m", network, {**planned.RECORD, "tensorrt": "8.6.1"})
    assert '{ name: "ids", data_type: TYPE_INT32, dims: [ 2 ] },' in old
    odd = replace(network, inputs=(Tensor("q", "FP8", (2,)),))
    with pytest.raises(BundleError, match="Triton has no type for q: FP8"):
        triton.config("m", odd, planned.RECORD)


def test_version_compatible_engines_need_a_flag() -> None:
    record: dict[str, Any] = {**planned.RECORD, "options": {"version_compatible": True}}
    text = triton.config("m", planned.deep()[0], record)
    assert "# start Triton with --backend-config=tensorrt,version-compatible=true\n" in text


def test_a_variant_of_several_segments(tmp_path: Path) -> None:
    path = planned.with_plan(handmade.write(tmp_path / "bundle.tar"))
    with pytest.raises(BundleError) as refused:
        extract_triton(open_bundle(path), tmp_path / "models")
    assert refused.value.message == (
        "orin cannot be a model of Triton: "
        "it has 2 segments: forward_0 (tensorrt), forward_1 (reference)"
    )
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("built", [True, False])
def test_rtx_is_no_model_of_triton(tmp_path: Path, plan: Path, built: bool) -> None:
    """Finishing the bundle would make one more engine that Triton does not run."""
    path = planned.write_deep(tmp_path / "deep.tar", "tensorrt-rtx", plan if built else None)
    with pytest.raises(BundleError, match="Triton has no backend for TensorRT-RTX") as refused:
        extract_triton(open_bundle(path), tmp_path / "models", target="here")
    assert refused.value.hint == "build the bundle for a target with TensorRT"
    with pytest.raises(BundleError) as refused:
        extract_triton(open_bundle(path), tmp_path / "models")
    assert refused.value.message == (
        "there is no TensorRT engine for Triton; "
        "forward_0 of here: it runs by tensorrt-rtx, for which Triton has no backend; "
        "forward_0 of other: it runs by tensorrt-rtx, for which Triton has no backend"
    )
    assert refused.value.hint == "build the bundle for a target with TensorRT"


def test_what_the_device_builds_is_finished_first(tmp_path: Path) -> None:
    path = planned.write_deep(tmp_path / "deep.tar")
    with pytest.raises(BundleError, match="forward_0 of here: it has no engine yet") as refused:
        extract_triton(open_bundle(path), tmp_path / "models")
    assert refused.value.hint == "build it on the device with: trtpack finish"
