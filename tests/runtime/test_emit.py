# SPDX-License-Identifier: Apache-2.0
"""Every layer kind becomes a real TensorRT-RTX engine, and refusals name the layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.runtime.layer_cases import VARIANTS, Case
from trtpack_runtime.dims import dim, maximum, minimum
from trtpack_runtime.engines._build import BuildOptions, build_plan, layers_named
from trtpack_runtime.engines._emit import emit
from trtpack_runtime.engines._layers import EMITTERS
from trtpack_runtime.engines._memory import address
from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.layers import ENUMS, KINDS
from trtpack_runtime.network import Constant, Layer, Network, Profile, Tensor
from trtpack_tools.recorder import Recorder

trt: Any = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
QUICK = BuildOptions(compute_capabilities=("SM89",), optimization_level=0)


def weights_of(values: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The bytes of each tensor."""
    return {k: v.contiguous().reshape(-1).view(torch.uint8).numpy() for k, v in values.items()}


def test_every_kind_can_be_emitted() -> None:
    assert set(EMITTERS) == set(KINDS)


def test_the_enums_are_tensorrts() -> None:
    for name, members in ENUMS.items():
        assert members <= set(getattr(trt, name).__members__), name


def is_late(dtype: str, dynamic: bool) -> bool:
    """Whether the slow lane builds it; the quick one has open sizes from converters' cases."""
    return dynamic or dtype in ("HALF", "BF16")


@pytest.mark.parametrize(
    ("case", "dtype", "dynamic"),
    [
        pytest.param(case, dtype, dynamic, marks=[pytest.mark.slow] * is_late(dtype, dynamic))
        for case, dtype in VARIANTS
        for dynamic in {False, bool(case.dynamic)}
    ],
    ids=str,
)
def test_tensorrt_builds(case: Case, dtype: str, dynamic: bool) -> None:
    network, weights = case.network(dtype, dynamic=dynamic), weights_of(case.values(dtype))
    if KINDS[case.kind].rtx:
        assert build_plan(trt, network, weights, QUICK).nbytes > 0
        return
    assert emit(trt, network, weights).definition.num_layers > 0
    with pytest.raises(EngineBuildError, match="TensorRT built no engine"):
        build_plan(trt, network, weights, QUICK)


def test_a_type_tensorrt_declares_otherwise_is_told() -> None:
    network = Network(
        (Tensor("x", "FLOAT", (2, 3)),),
        ("y",),
        {},
        (Layer("unary", "y", {"input": "x"}, {"op": "EXP"}, ("y",), "net.exp (net.py:3)"),),
        {"y": Tensor("y", "HALF", (2, 3))},
    )
    message = r"unary 'y' \(net.exp \(net.py:3\)\): wanted y: HALF\[2, 3\], TensorRT answers FLOAT"
    with pytest.raises(EngineBuildError, match=message):
        emit(trt, network, {})


def test_a_refused_setter_is_told_with_tensorrts_words() -> None:
    attributes = {
        "type": "MAX",
        "window_size": (2, 2),
        "stride_nd": (2, 2),
        "pre_padding": (-1, 0),
        "post_padding": (0, 0),
        "padding_mode": "EXPLICIT_ROUND_DOWN",
    }
    network = Network(
        (Tensor("x", "FLOAT", (1, 3, 8, 8)),),
        ("y",),
        {},
        (Layer("pooling_nd", "y", {"input": "x"}, attributes, ("y",), "net.pool (net.py:7)"),),
        {"y": Tensor("y", "FLOAT", (1, 3, 4, 4))},
    )
    with pytest.raises(EngineBuildError, match=r"net.pool \(net.py:7\).*setPrePadding"):
        emit(trt, network, {})


def test_a_build_tensorrt_refuses_is_told_with_its_last_errors() -> None:
    recorder = Recorder()
    tensors = {
        name: recorder.input(Tensor(name, "FLOAT", (1, 4, 8, 64))) for name in ("q", "k", "v")
    }
    (y,) = recorder.add(
        "attention",
        {"query": tensors["q"], "key": tensors["k"], "value": tensors["v"]},
        {"normalization_op": "SOFTMAX", "causal": False, "decomposable": False},
        name="y",
    )
    with pytest.raises(EngineBuildError, match=r"TensorRT built no engine: .*not supported"):
        build_plan(trt, recorder.finish([y.name]), {}, QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BuildOptions(("SM50",)), "cannot build for SM50, it knows .*SM89"),
        (
            BuildOptions(("SM89",), flags=("FASTER",)),
            r"TensorRT 1\..* does not have the flag FASTER$",
        ),
    ],
)
def test_an_option_tensorrt_lacks_is_told(options: BuildOptions, message: str) -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    (y,) = recorder.add("unary", {"input": x}, {"op": "EXP"}, name="y")
    with pytest.raises(EngineBuildError, match=message):
        build_plan(trt, recorder.finish([y.name]), {}, options)


def _reshaped() -> Network:
    """Uses every operation a size may need, some of them twice."""
    recorder = Recorder()
    n, m = dim("x", 0), dim("x", 1)
    x = recorder.input(Tensor("x", "FLOAT", (n, m)))
    rows = maximum(n // 3, minimum(m, 5)) + n % 4
    for name in ("first", "second"):
        (picked,) = recorder.add(
            "slice",
            {"input": x},
            {"start": (0, 0), "shape": (rows, m * 2), "stride": (1, 1), "mode": "WRAP"},
            name=name,
        )
        (x,) = recorder.add("unary", {"input": picked}, {"op": "EXP"}, name=f"{name} exp")
        x = picked
    profile = Profile({"x": ((4, 2), (8, 4), (16, 8))})
    return recorder.finish([x.name], [profile])


def test_a_size_is_computed_once() -> None:
    network = _reshaped()
    definition = emit(trt, network, {}).definition
    names = [definition.get_layer(i).name for i in range(definition.num_layers)]
    sizes = [name for name in names if name.startswith(("shape ", "size ", "sizes "))]
    assert len([name for name in names if name.startswith("shape x")]) == 1
    assert sizes.count("size x.0") == sizes.count("size x.1") == 1
    assert len([name for name in sizes if name.startswith("sizes ")]) == 1
    assert build_plan(trt, network, {}, QUICK).nbytes > 0


def test_sizes_as_values_build() -> None:
    recorder = Recorder()
    n = dim("x", 0)
    recorder.input(Tensor("x", "FLOAT", (n, 3)))
    outputs = [
        recorder.add(
            "fill",
            {},
            {"shape": (n, 2), "op": "LINSPACE", "output_type": dtype, "alpha": n, "beta": (n, 1)},
            name=dtype,
        )[0].name
        for dtype in ("INT64", "INT32", "FLOAT")
    ]
    network = recorder.finish(outputs, [Profile({"x": ((1, 3), (2, 3), (4, 3))})])
    assert build_plan(trt, network, {}, QUICK).nbytes > 0


def test_names_and_origins_reach_tensorrt() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "HALF", (dim("x", 0), 3, 8, 8)))
    kernel = recorder.constant("HALF", (4, 3, 1, 1), "conv.weight")
    (y,) = recorder.add(
        "convolution_nd",
        {"input": x, "kernel": kernel},
        {
            "num_output_maps": 4,
            "kernel_shape": (1, 1),
            **dict.fromkeys(("stride_nd", "dilation_nd"), (1, 1)),
            **dict.fromkeys(("pre_padding", "post_padding"), (0, 0)),
            "num_groups": 1,
        },
        name="conv",
        origin="net.conv (net.py:9)",
    )
    weights = weights_of({"conv.weight": torch.rand(4, 3, 1, 1).half()})
    definition = emit(trt, recorder.finish([y.name]), weights).definition
    (layer,) = (definition.get_layer(i) for i in range(definition.num_layers))
    assert (layer.name, layer.metadata) == ("conv", "net.conv (net.py:9)")
    assert definition.get_input(0).get_dimension_name(0) == "x.0"
    assert definition.get_output(0).name == "conv"
    assert definition.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def test_one_stored_tensor_serves_two_constants() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    y = x
    for _ in range(2):
        w = recorder.constant("FLOAT", (2, 3), "w")
        (y,) = recorder.add("elementwise", {"input1": y, "input2": w}, {"op": "SUM"}, name="y")
    network = recorder.finish([y.name])
    assert build_plan(trt, network, weights_of({"w": torch.rand(2, 3)}), QUICK).nbytes > 0


def test_a_bias_that_is_no_constant_is_refused() -> None:
    tensors = {
        "x": Tensor("x", "FLOAT", (1, 3, 4, 4)),
        "s": Tensor("s", "FLOAT", (3,)),
    }
    network = Network(
        tuple(tensors.values()),
        ("y",),
        {},
        (
            Layer(
                "scale_nd",
                "y",
                {"input": "x", "scale": "s"},
                {"mode": "CHANNEL", "channel_axis": 1},
                ("y",),
            ),
        ),
        {"y": Tensor("y", "FLOAT", (1, 3, 4, 4))},
    )
    with pytest.raises(EngineBuildError, match="takes scale as weights, so it must be a constant"):
        emit(trt, network, {})


def test_addresses_are_the_buffers_own() -> None:
    tensor = torch.arange(4.0)
    assert address(tensor.numpy()) == tensor.data_ptr()
    assert address(memoryview(tensor.numpy())[2:]) == tensor.data_ptr() + 8
    assert address(b"read only") != 0
    assert Constant("c", "FLOAT", (4,), "c").recipe is None


def test_a_layer_the_release_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    given = {"op": "SUM", "axis": 1, "exclusive": False, "reverse": False}
    (y,) = recorder.add("cumulative", {"input": x}, given, name="y", origin="net.py:3")
    monkeypatch.delattr(trt.INetworkDefinition, "add_cumulative")
    with pytest.raises(
        EngineBuildError, match=r"'y' \(net.py:3\): this TensorRT has no such layer"
    ):
        emit(trt, recorder.finish([y.name]), {})


def test_bytes_read_in_two_types_build() -> None:
    tensors = {"x": Tensor("x", "FLOAT", (4,)), "i": Tensor("i", "INT32", (4,))}
    constants = {
        "a": Constant("a", "FLOAT", (4,), "zeros"),
        "b": Constant("b", "INT32", (4,), "zeros"),
    }
    layers = tuple(
        Layer("elementwise", out, {"input1": left, "input2": right}, {"op": "SUM"}, (out,))
        for out, left, right in (("y", "x", "a"), ("j", "i", "b"))
    )
    answers = {"y": Tensor("y", "FLOAT", (4,)), "j": Tensor("j", "INT32", (4,))}
    network = Network(tuple(tensors.values()), ("y", "j"), constants, layers, answers)
    assert build_plan(trt, network, {"zeros": bytes(16)}, QUICK).nbytes > 0


def test_a_stored_tensor_of_another_size_is_never_read() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    w = recorder.constant("FLOAT", (2, 3), "w")
    (y,) = recorder.add("elementwise", {"input1": x, "input2": w}, {"op": "SUM"}, name="y")
    with pytest.raises(EngineBuildError, match="'w' has 20 bytes, wanted 24"):
        emit(trt, recorder.finish([y.name]), {"w": bytes(20)})


@pytest.mark.parametrize(
    ("said", "layers"),
    [
        ("Could not find any implementation for node layer1.0.conv1/conv2d + relu.", ["conv1"]),
        (
            "for node {ForeignNode[layer1.0.conv1/conv2d...layer1.0.conv10/conv2d]}.",
            ["conv1", "10"],
        ),
        ("layer1.0.conv1/conv2d_1: out of range", []),
        ("model.layer1.0.conv1/conv2d: out of range", []),
        ("nothing of it", []),
    ],
)
def test_the_layers_that_tensorrt_names_are_found(said: str, layers: list[str]) -> None:
    names = {"conv1": "layer1.0.conv1/conv2d", "10": "layer1.0.conv10/conv2d"}
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    for op, name in zip(("EXP", "ABS"), names.values(), strict=True):
        (x,) = recorder.add("unary", {"input": x}, {"op": op}, name=name)
    assert layers_named(recorder.finish([x.name]), [said]) == tuple(names[key] for key in layers)
