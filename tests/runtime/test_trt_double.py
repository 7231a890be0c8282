# SPDX-License-Identifier: Apache-2.0
"""The doubles: as strict as the recorded facts, and the same as the TensorRT-RTX that is here."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from tests.runtime.emission import bytes_of, zeros
from tests.runtime.layer_cases import VARIANTS
from tests.runtime.networks import NETWORKS
from tests.runtime.trt_double import controls, double, has, releases
from tests.runtime.trt_double.facts import members
from trtpack_runtime.engines._build import BuildOptions, build_plan
from trtpack_runtime.engines._emit import emit
from trtpack_runtime.network import Network

RTX = "rtx-1.7"


@pytest.fixture(scope="module")
def real() -> Any:
    """The TensorRT-RTX the facts of that release were read from."""
    trt: Any = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    if not trt.__version__.startswith("1.7."):
        pytest.skip(f"the facts are of TensorRT-RTX 1.7, this is {trt.__version__}")
    return trt


def test_the_facts_are_those_of_the_tensorrt_rtx_here(real: Any) -> None:
    table = releases()[RTX]
    for name, numbers in table["enums"].items():
        owner: Any = real
        for part in name.split("."):
            owner = getattr(owner, part)
        assert {member: int(v) for member, v in owner.__members__.items()} == numbers, name
    for name in table["classes"]:
        lacking = {m for m in members(RTX, name) if not hasattr(getattr(real, name), m)}
        assert not lacking, (name, lacking)


def test_the_double_makes_of_a_network_what_tensorrt_rtx_makes(real: Any) -> None:
    """Names, types, shapes of all layers, those for sizes and constants too.

    Attention is two layers there, which TensorRT shows as such and the double does not.
    """
    stand_in = double(RTX)
    given: list[tuple[Network, Any]] = [(make(), None) for make in NETWORKS.values()]
    given += [
        (case.network(dtype, dynamic=bool(case.dynamic)), bytes_of(case.values(dtype)))
        for case, dtype in VARIANTS
        if case.kind != "attention"
    ]
    for network, weights in given:
        ours, theirs = (
            emit(trt, network, zeros(network) if weights is None else weights).definition
            for trt in (stand_in, real)
        )
        assert _told(ours) == _told(theirs)


def _told(definition: Any) -> Any:
    layers = [definition.get_layer(index) for index in range(definition.num_layers)]
    outputs = [definition.get_output(index) for index in range(definition.num_outputs)]
    return [
        [(layer.name, layer.metadata, layer.num_inputs) for layer in layers],
        [_tensor(layer.get_output(i)) for layer in layers for i in range(layer.num_outputs)],
        [tensor.name for tensor in outputs],
    ]


def _tensor(tensor: Any) -> tuple[str, tuple[int, ...]]:
    return tensor.dtype.name, tuple(tensor.shape)


@pytest.mark.parametrize("release", releases())
def test_a_release_has_its_names_and_no_others(release: str) -> None:
    trt = double(release)
    everything = {
        f"{owner}.{member}"
        for table in releases().values()
        for owner, row in table["classes"].items()
        for member in (*row["methods"], *row["properties"])
    }
    for name in sorted(everything):
        owner, _, member = name.partition(".")
        if member.startswith("__"):
            continue
        assert (hasattr(trt, owner) and hasattr(getattr(trt, owner), member)) == has(release, name)
    for enum, numbers in releases()[release]["enums"].items():
        if "." not in enum:
            have = getattr(trt, enum).__members__
            assert {member: int(value) for member, value in have.items()} == numbers


def test_what_a_release_lacks_is_said() -> None:
    trt = double("8.6")
    with pytest.raises(AttributeError, match=r"TensorRT 8.6 has no IProgressMonitor"):
        _ = trt.IProgressMonitor
    with pytest.raises(AttributeError, match=r"TensorRT 8.6 has no DataType.INT64"):
        _ = trt.DataType.INT64
    network = _network(trt)
    with pytest.raises(AttributeError, match=r"TensorRT 8.6 has no INetworkDefinition.mark_debug"):
        network.mark_debug(None)
    with pytest.raises(AttributeError, match=r"TensorRT 8.6 has no INetworkDefinition.speed"):
        network.speed = 3


def _network(trt: Any) -> Any:
    class Quiet(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            self.lines.append(f"{severity.name}: {msg}")

    flags = 3 if hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH") else 1
    return trt.Builder(Quiet()).create_network(1 if trt.__version__.startswith("8") else flags)


def test_arguments_are_held_against_the_recorded_keywords() -> None:
    old, new = _network(double("8.6")), _network(double("11.1"))
    trt = double("10.3")
    network = _network(trt)
    x = network.add_input("x", trt.float32, (2, 3))
    with pytest.raises(TypeError, match=r"add_unary\(\): incompatible function arguments"):
        network.add_unary(x)
    with pytest.raises(TypeError, match=r"takes \(input, type\)"):
        network.add_activation(x, trt.ActivationType.RELU, alpha=1.0)
    with pytest.raises(TypeError, match="no UnaryOperation"):
        network.add_unary(x, trt.ActivationType.RELU)
    with pytest.raises(TypeError, match=r"add_fill\(\): .* takes \(shape, op\), got 3"):
        old.add_fill((2,), None, None)
    with pytest.raises(
        TypeError, match=r"add_quantize\(\): .* takes \(input, scale, output_type\)"
    ):
        new.add_quantize(None, None)


def test_weights_of_8_6_are_numpy_arrays() -> None:
    trt = double("8.6")
    with pytest.raises(TypeError, match=r"Weights.__init__\(\): incompatible"):
        trt.Weights(trt.float32, 4096, 1)
    assert trt.Weights(numpy.ones(3, numpy.float16)).dtype is trt.DataType.HALF
    with pytest.raises(TypeError, match="Could not implicitly convert NumPy data type int64"):
        trt.Weights(numpy.ones(3, numpy.int64))


def test_what_tensorrt_refuses_is_in_the_log() -> None:
    trt = double("10.3")
    network = _network(trt)
    lines = network._log.__self__._logger.lines
    x = network.add_input("x", trt.float32, (2, 3))
    layer = network.add_unary(x, trt.UnaryOperation.EXP)
    layer.precision = trt.float16
    assert not layer.precision_is_set
    network.mark_output(x)
    assert network.num_outputs == 0
    y = network.add_input("y", trt.float16, (2, 3))
    assert network.add_elementwise(x, y, trt.ElementWiseOperation.SUM).get_output(0).shape == ()
    assert [line.split(":")[1].strip() for line in lines[:2]] == ["ILayer", "markOutput"]
    assert "wanted FLOAT as input1" in lines[2]


def test_a_creation_flag_of_another_release_is_refused() -> None:
    trt = double("11.1")
    builder = _network(trt)._builder
    with pytest.raises(ValueError, match="bits this release does not know"):
        builder.create_network(1 << 4)
    trt = double("8.6")
    builder = _network(trt)._builder
    assert builder.create_network(0) is None
    assert "implicit batch" in builder._logger.lines[-1]


@pytest.mark.parametrize("release", ["8.6", "10.3", "11.1"])
def test_a_plan_is_read_again_by_its_own_release(release: str) -> None:
    trt = double(release)
    network = NETWORKS["residual_half_dynamic"]()
    plan = build_plan(trt, network, zeros(network), BuildOptions())
    logger = _network(trt)._builder._logger
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    assert names == ["x", "head"]
    assert engine.get_tensor_dtype("head") is trt.DataType.HALF
    context = engine.create_execution_context()
    assert not context.set_input_shape("x", (33, 3, 32, 32))
    assert context.set_input_shape("x", (5, 3, 32, 32))
    assert tuple(context.get_tensor_shape("head")) == (5, 10)
    assert not context.execute_async_v3(0)
    assert all(context.set_tensor_address(name, 4096) for name in names)
    assert context.execute_async_v3(0)
    assert trt.Runtime(logger).deserialize_cuda_engine(bytes(plan)[:90]) is None
    other = double("10.16")
    reader = _network(other)._builder._logger
    assert other.Runtime(reader).deserialize_cuda_engine(plan) is None
    assert "expecting library version 10.16.2.10 got" in reader.lines[-1]
    assert len(controls(trt).built) == 1
