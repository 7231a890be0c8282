# SPDX-License-Identifier: Apache-2.0
"""Engines are read by TensorRT's inspector; their layers are found again in the model."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import handmade, planned
from tests.runtime.command import trtpack
from tests.runtime.trt_double import RELEASES, double
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.device import facts
from trtpack_runtime.engines import _inspect, tensorrt, tensorrt_rtx
from trtpack_runtime.engines._build import BuildOptions, build_plan
from trtpack_runtime.engines._child import ask
from trtpack_runtime.errors import BundleError, DeviceError
from trtpack_runtime.finish import Workshop, finish_segment
from trtpack_runtime.network import Layer
from trtpack_runtime.segments import find_segment
from trtpack_tools.cli.engine_text import inspected, origins_text
from trtpack_tools.engine_layers import InspectedEngine, inspect_engine, read_layers
from trtpack_tools.origins import Origin, Origins, origin_of

NETWORK, STORED = planned.deep()
ORIGINS = Origins(NETWORK)
DETAILED = [
    {
        "Name": "Reformatting CopyNode for Input Tensor 0 to blocks.0/linear",
        "LayerType": "Reformat",
        "Inputs": [{"Name": "x", "Dimensions": [4, 8], "Format/Datatype": "Row major linear FP16"}],
        "Outputs": [
            {"Name": "c", "Dimensions": [4, 8], "Format/Datatype": "Row major linear FP16"}
        ],
        "TacticValue": "0x0",
    },
    {
        "Name": "blocks.0/linear + blocks.0.act/relu",
        "LayerType": "CaskGemm",
        "Outputs": [
            {"Name": "h", "Dimensions": [4, 8], "Format/Datatype": "Row major linear FP32"}
        ],
        "Weights": {"Type": "Half", "Count": 64},
        "Bias": {"Type": "Half", "Count": 8},
        "TacticName": "sm80_xmma_gemm_f16f16",
        "TacticValue": "0x17",
    },
]


def plan(trt: Any, folder: Path, **options: Any) -> None:
    blob = build_plan(trt, NETWORK, buffers(), BuildOptions(**options))
    (folder / "plan").write_bytes(bytes(blob))


def buffers() -> dict[str, memoryview]:
    return {k: memoryview(v.contiguous().view(torch.uint8).numpy()) for k, v in STORED.items()}


def go_on(event: Any) -> bool:
    return True


@pytest.mark.parametrize(
    ("text", "module", "source"),
    [
        ("blocks.1 (model.py:12)", "blocks.1", "model.py:12"),
        ("model.py:12", "", "model.py:12"),
        ("blocks.1", "blocks.1", ""),
        ("", "scope.of", ""),
    ],
)
def test_where_a_layer_came_from(text: str, module: str, source: str) -> None:
    layer = Layer("cast", "scope.of/the_name", {}, {}, (), text)
    assert origin_of(layer) == Origin("scope.of/the_name", "cast", module, source)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("blocks.0/linear", ["blocks.0/linear"]),
        ("blocks.0/linear + blocks.0.act/relu", ["blocks.0/linear", "blocks.0.act/relu"]),
        ("PWN(PWN(add), blocks.1.act/relu)", ["add", "blocks.1.act/relu"]),
        (
            "{ForeignNode[blocks.4/linear...blocks.5/linear]}",
            ["blocks.4/linear", "blocks.4.act/relu", "blocks.5/linear"],
        ),
        ("{ForeignNode[(Unnamed Layer* 3)...add]}", ["add"]),
        ("blocks.2/linear_myl0_3", ["blocks.2/linear"]),
        ("Reformatting CopyNode for Input Tensor 0 to add", ["add"]),
        ("__myl_FcAdd_myl0_1", []),
        ("blocks.0/linear_1", []),
        ("addition", []),
    ],
)
def test_layers_behind_a_name(name: str, found: Sequence[str]) -> None:
    assert [origin.layer for origin in ORIGINS.of(name)] == found


def test_metadata_tells_where_the_name_does_not() -> None:
    metadata = "blocks.2 (model.py:12)\x1eblocks.3 (model.py:13)"
    assert [o.module for o in ORIGINS.of("__myl_Fc", metadata)] == ["blocks.2", "blocks.3"]
    assert [o.layer for o in ORIGINS.of("add", metadata)] == ["add"]


def test_layers_as_the_inspector_tells_them() -> None:
    copied, fused = read_layers(DETAILED, ORIGINS)
    assert (copied.kind, copied.tactic, copied.weights) == ("Reformat", "0x0", 0)
    assert copied.inputs[0].nbytes == 64
    assert (fused.tactic, fused.weights) == ("sm80_xmma_gemm_f16f16", 72)
    assert (fused.outputs[0].shape, fused.outputs[0].nbytes) == ((4, 8), 128)
    assert [o.source for o in fused.origins] == ["model.py:10", "act.py:3"]
    (named,) = read_layers(["blocks.0/linear"], ORIGINS)
    assert (named.kind, named.origins[0].module) == ("", "blocks.0")


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("detailed", [True, False])
def test_every_release(release: str, detailed: bool, tmp_path: Path) -> None:
    trt = double(release)
    plan(trt, tmp_path, detailed=detailed)
    told = _inspect.run(trt, {}, tmp_path, go_on)
    json.dumps(told)
    layers = read_layers(told["layers"], ORIGINS)
    assert {o.layer for layer in layers for o in layer.origins} == {
        layer.name for layer in NETWORK.layers
    }
    assert any(layer.kind for layer in layers) == detailed
    assert [(t["name"], t["mode"], t["dtype"]) for t in told["tensors"]] == [
        ("x", "input", "HALF"),
        ("blocks.5.act/relu", "output", "HALF"),
    ]
    assert told["engine"]["profiles"] == 1
    assert told["engine"]["device_memory_bytes"] == 4096


def test_a_damaged_plan(tmp_path: Path) -> None:
    (tmp_path / "plan").write_bytes(b"no plan")
    with pytest.raises(BundleError, match="cannot read the engine"):
        _inspect.run(double("10.3"), {}, tmp_path, go_on)


def test_the_rtx_runtime_needs_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    if facts()["gpus"]:
        pytest.skip("this machine has a GPU")
    blob = rtx_plan(tmp_path)
    with pytest.raises(DeviceError, match=r"forward_0: .*(driver|GPU)"):
        ask("tensorrt_rtx", "inspect", {}, name="forward_0", inputs={"plan": blob})


def rtx_plan(folder: Path) -> Path:
    from trtpack_runtime.safetensors import write_safetensors

    write_safetensors(folder / "weights", [])
    tensorrt_rtx.build(
        handmade.network(),
        folder / "weights",
        folder / "clip.plan",
        compute_capabilities=("SM89",),
        optimization_level=0,
    )
    return folder / "clip.plan"


def test_text_with_details(tmp_path: Path) -> None:
    bundle = open_bundle(planned.write_deep(tmp_path / "deep.tar"))
    found = find_segment(bundle, "forward_0", "here")
    tensors = (
        {"name": "x", "mode": "input", "dtype": "HALF", "shape": [-1, 8], "format": "Linear"},
    )
    figures = {"device_memory_bytes": 2048, "profiles": 1, "refittable": False}
    engine = InspectedEngine("8.6.0", 4000, read_layers(DETAILED, ORIGINS), tensors, figures)
    assert (
        "\n".join(inspected(found, engine))
        == """\
forward_0 of here  (TensorRT 8.6.0, 4 kB)
  layers    2, of 13 layers of the network
  memory    2.05 kB of scratch on the GPU
  profiles  1
  weights   fixed

inputs and outputs
  input  x  half  -1x8  Linear

layers
     type      layer                                             output                     tactic                 from
  0  Reformat  Reformatting CopyNode f...r 0 to blocks.0/linear  4x8 Row major linear FP16  0x0                    blocks.0 (model.py:10)
  1  CaskGemm  blocks.0/linear + blocks.0.act/relu               4x8 Row major linear FP32  sm80_xmma_gemm_f16f16  blocks.0, blocks.0.act (model.py:10, act.py:3)"""  # noqa: E501 as it is printed
    )


def test_text_without_details(tmp_path: Path) -> None:
    bundle = open_bundle(planned.write_deep(tmp_path / "deep.tar"))
    found = find_segment(bundle, "forward_0", "here")
    engine = InspectedEngine("8.6.0", 1, read_layers(["add", "copy"], ORIGINS), (), {})
    text = "\n".join(inspected(found, engine))
    assert "2, of 13 layers of the network; 1 of TensorRT's own" in text
    assert "0  add   (model.py:30)" in text
    assert "Only names are known: the engine was built without details." in text


def test_many_origins_are_shortened() -> None:
    origins = [Origin(f"l{i}", "cast", f"blocks.{i}", f"model.py:{i}") for i in range(6)]
    assert origins_text(origins) == "blocks.0, ..., blocks.5 (model.py:0, ..., model.py:5)"


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--engine", "forward_0"], 5, "forward_0 of orin has no engine yet: the device builds it"),
        (["--engine", "forward_1"], 2, "forward_1 of orin runs by reference"),
        (["--engine", "forward_9"], 2, "there is no segment 'forward_9', there are forward_0, "),
        (["--engine", "forward_0", "--target", "cpu"], 2, "forward_0 of cpu runs by reference"),
        (["--engine", "forward_0", "--target", "oren"], 2, "the bundle has no variant 'oren'"),
        (
            ["--target", "orin"],
            2,
            "--target, --detailed and --trust are for the engine of",
        ),
        (["--engine", "forward_0", "--detailed"], 6, "cannot build forward_0 of orin here: "),
    ],
)
def test_what_cannot_be_inspected(
    arguments: Sequence[str], code: int, error: str, tmp_path: Path
) -> None:
    done = trtpack("inspect", handmade.write(tmp_path / "bundle.tar"), *arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"error: {error}")
    assert "\nhint: " in done.err


def test_an_engine_of_another_machine(tmp_path: Path) -> None:
    path = planned.with_plan(handmade.write(tmp_path / "bundle.tar"))
    done = trtpack("inspect", path, "--engine", "forward_0")
    assert (done.code, done.out) in ((5, ""), (6, ""))
    assert done.err.startswith("error: cannot read the engine of forward_0 of orin here: ")


# --- the whole way, with a double of TensorRT in the child ----------------------------------------
GPU = {
    "name": "GPU",
    "sm": "8.9",
    "memory_bytes": 16 << 30,
    "multiprocessors": 100,
    "integrated": False,
}
FACTS = {
    "gpus": [GPU],
    "problems": [],
    "driver": {"version": "550", "cuda": "12.4"},
    "tensorrt": "8.6.2",
    "jetson": None,
    "os": "linux",
    "arch": "x86_64",
    "runtime": "0.1.0",
    "torch": "2.6.0",
}


@pytest.fixture
def release_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with TensorRT 8.6 and empty stores."""
    package = tmp_path / "modules" / "tensorrt"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import sys\n"
        "from tests.runtime.trt_double import double\n"
        "sys.modules[__name__] = double('8.6')\n"
    )
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), str(root)]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("release_8")
def test_an_engine_this_machine_built(tmp_path: Path) -> None:
    bundle = open_bundle(planned.write_deep(tmp_path / "deep.tar"))
    found = find_segment(bundle, "forward_0", "here")
    with pytest.raises(BundleError, match="forward_0 of here has no engine yet"):
        inspect_engine(bundle, found, FACTS)
    finish_segment(bundle, "here", "forward_0", Workshop(FACTS, tmp_path))
    engine = inspect_engine(bundle, found, FACTS)
    assert (engine.version, engine.detailed) == ("8.6.2", False)
    assert engine.nbytes > 0
    assert {o.module for layer in engine.layers for o in layer.origins} >= {"blocks.0", ""}


@pytest.mark.usefixtures("release_8")
def test_with_details(tmp_path: Path) -> None:
    bundle = open_bundle(planned.write_deep(tmp_path / "deep.tar"))
    found = find_segment(bundle, "forward_0", "here")
    engine = inspect_engine(bundle, found, FACTS, detailed=True)
    assert engine.detailed
    assert "blocks.5.act (act.py:3)" in "\n".join(inspected(found, engine))


@pytest.mark.usefixtures("release_8")
def test_the_bundles_own_engine(tmp_path: Path) -> None:
    plan(double("8.6"), tmp_path)
    record = tensorrt.record_of("8.6.2", BuildOptions(), FACTS)
    path = planned.write_deep(tmp_path / "deep.tar", plan=tmp_path / "plan", **record)
    bundle = open_bundle(path)
    engine = inspect_engine(bundle, find_segment(bundle, "forward_0", "here"), FACTS)
    assert engine.nbytes == (tmp_path / "plan").stat().st_size
    other = {**FACTS, "gpus": [{**GPU, "sm": "7.5", "name": "Other"}], "torch": None}
    with pytest.raises(
        BundleError, match="cannot read the engine of forward_0 of here here: built on"
    ):
        inspect_engine(bundle, find_segment(bundle, "forward_0", "here"), other)


def test_information_that_is_not_quite_json() -> None:
    text = (
        '{"Layers": [{\n  "Name": "a "quoted" name",\n  "LayerType": "Scale",\n'
        '  "Inputs": [\n  {\n    "Name": "x",\n    "Dimensions": [1,2]\n  }],\n'
        '  "Metadata": "fc (model.py:3)\x1erelu \\"b\\""\n}],\n"Bindings": ["x"\n,"y"\n]}\n'
    )
    found = _inspect.read_information(text)
    assert found["Bindings"] == ["x", "y"]
    (layer,) = found["Layers"]
    assert layer["Name"] == 'a "quoted" name'
    assert layer["Metadata"] == 'fc (model.py:3)\x1erelu "b"'
    with pytest.raises(json.JSONDecodeError):
        _inspect.read_information('{"Layers": [')
