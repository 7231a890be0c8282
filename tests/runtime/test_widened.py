# SPDX-License-Identifier: Apache-2.0
"""Quantized networks as TensorRT 8.6 takes them: FLOAT where HALF was, and nothing in between."""

from __future__ import annotations

import pytest
import torch

from tests.proving.comparing import difference
from tests.proving.trial import Trial, layer_trials
from tests.runtime.emission import bytes_of
from tests.runtime.layer_cases import VARIANTS
from tests.runtime.trt_double import controls, double
from trtpack_runtime.engines._build import BuildOptions, build_plan
from trtpack_runtime.engines._emit import emit
from trtpack_runtime.engines._widened import is_widened, widened
from trtpack_runtime.network import Network, Tensor
from trtpack_runtime.reference import evaluate
from trtpack_tools.check import check_network
from trtpack_tools.recorder import Recorder

WEIGHTS = {
    "scale": torch.tensor(0.05, dtype=torch.float16),
    "w": torch.linspace(-1, 1, 24, dtype=torch.float16).reshape(3, 8),
    "ws": torch.tensor([0.01, 0.005, 0.0078125], dtype=torch.float16),
    "b": torch.tensor([[0.5, -0.25, 1.0]], dtype=torch.float16),
}


def quantized() -> Network:
    """A product of numbers of few bits, with FLOAT before, HALF around and a softmax in FLOAT."""
    r = Recorder()
    x = r.input(Tensor("x", "FLOAT", (4, 8)))
    scale, w = r.constant("HALF", (), "scale"), r.constant("HALF", (3, 8), "w")
    ws, b = r.constant("HALF", (3,), "ws"), r.constant("HALF", (1, 3), "b")
    (half,) = r.add("cast", {"input": x}, {"to_type": "HALF"}, name="half")
    q, dq = {"output_type": "INT8", "axis": None}, {"output_type": "HALF", "axis": None}
    (few,) = r.add("quantize", {"input": half, "scale": scale}, q, name="few")
    (a,) = r.add("dequantize", {"input": few, "scale": scale}, dq, name="a")
    (few,) = r.add("quantize", {"input": w, "scale": ws}, q | {"axis": 0}, name="few weights")
    (c,) = r.add("dequantize", {"input": few, "scale": ws}, dq | {"axis": 0}, name="c")
    operations = {"op0": "NONE", "op1": "TRANSPOSE"}
    (y,) = r.add("matrix_multiply", {"input0": a, "input1": c}, operations, name="product")
    (y,) = r.add("elementwise", {"input1": y, "input2": b}, {"op": "SUM"}, name="sum")
    (wide,) = r.add("cast", {"input": y}, {"to_type": "FLOAT"}, name="wide")
    (s,) = r.add("softmax", {"input": wide}, {"axes": (1,)}, name="soft")
    (s,) = r.add("cast", {"input": s}, {"to_type": "HALF"}, name="answer")
    return r.finish([s.name, y.name])


def _halves() -> list[Trial]:
    return [t for t in layer_trials() if t.dtype == "HALF" or "beside HALF" in t.name]


@pytest.mark.slow
def test_every_kind_widened_is_a_network_with_the_same_answers() -> None:
    trials = _halves()
    assert len(trials) > 400
    for trial in trials:
        wide = widened(trial.network, bytes_of(trial.constants))
        check_network(wide.network)
        within = [t for n in (wide.network, *wide.network.regions()) for t in n.tensors.values()]
        assert "HALF" not in {tensor.dtype for tensor in within}
        values = {
            name: torch.frombuffer(bytearray(made), dtype=torch.float32)
            for name, made in wide.made.items()
        }
        constants = {
            constant.data: values[constant.data].reshape(constant.shape)
            if constant.data in values
            else trial.constants[constant.data]
            for constant in wide.network.constants.values()
        }
        answers = []
        for sample in trial.samples:
            found = evaluate(wide.network, constants, dict(sample.inputs))
            types = (trial.network.tensor(name).dtype for name in trial.network.outputs)
            answers.append(
                [a.half() if t == "HALF" else a for a, t in zip(found, types, strict=True)]
            )
        assert difference(trial, answers) is None, trial.name


def test_8_6_is_given_no_cast_beside_scales() -> None:
    trt, network = double("8.6"), quantized()
    assert is_widened(network)
    build_plan(trt, network, bytes_of(WEIGHTS), BuildOptions(weights="refit"))
    (record,), (definition,) = controls(trt).built, controls(trt).networks
    assert {"FP16", "INT8"} <= set(record["flags"])
    parts = {layer.name: layer for layer in definition._layers}
    casts = [layer.name for layer in definition._layers if layer._row.kind == "cast"]
    assert casts == ["answer"]
    told = {name for name, layer in parts.items() if layer._is_set("precision")}
    assert told == {"soft"}
    assert parts["soft"].precision is trt.DataType.FLOAT
    for name in ("a", "c", "product", "sum"):
        assert parts[name].get_output(0).dtype is (
            trt.DataType.HALF if name == "sum" else trt.DataType.FLOAT
        )
    assert [tensor["dtype"] for tensor in record["outputs"]] == ["HALF", "HALF"]
    assert not record["weights"]


def test_8_6_is_given_weights_that_are_rounded_already() -> None:
    emitted = emit(double("8.6"), quantized(), bytes_of(WEIGHTS))
    constants = {p.name: p for p in emitted.definition._layers if p._row.kind == "constant"}
    w, scale = WEIGHTS["w"].float(), WEIGHTS["ws"].float()
    zero = torch.zeros(3, dtype=torch.int32)
    rounded = torch.fake_quantize_per_channel_affine(w, scale, zero, 0, -128, 127)
    given = torch.tensor(constants["constant w"].weights._array).reshape(3, 8)
    assert given.tolist() == rounded.tolist() != w.tolist()
    again = torch.fake_quantize_per_channel_affine(given, scale, zero, 0, -128, 127)
    assert again.tolist() == given.tolist()
    assert constants["constant b"].weights._array.tolist() == WEIGHTS["b"].float()[0].tolist()


def test_weights_that_are_read_without_their_scale_too_stay_as_they_are() -> None:
    r = Recorder()
    x = r.input(Tensor("x", "HALF", (3, 8)))
    scale, w = r.constant("HALF", (3,), "ws"), r.constant("HALF", (3, 8), "w")
    q, dq = {"output_type": "INT8", "axis": 0}, {"output_type": "HALF", "axis": 0}
    (few,) = r.add("quantize", {"input": w, "scale": scale}, q, name="few")
    (y,) = r.add("dequantize", {"input": few, "scale": scale}, dq, name="y")
    (z,) = r.add("elementwise", {"input1": x, "input2": w}, {"op": "SUM"}, name="z")
    emitted = emit(double("8.6"), r.finish([y.name, z.name]), bytes_of(WEIGHTS))
    (given,) = (p for p in emitted.definition._layers if p.name == "constant w")
    assert given.weights._array.tolist() == WEIGHTS["w"].float().flatten().tolist()


def test_inputs_keep_their_type() -> None:
    r = Recorder()
    x = r.input(Tensor("x", "HALF", (2, 3)))
    scale = r.constant("HALF", (), "scale")
    attributes = {"output_type": "INT8", "axis": None}
    (few,) = r.add("quantize", {"input": x, "scale": scale}, attributes, name="few")
    back = {"output_type": "HALF", "axis": None}
    (y,) = r.add("dequantize", {"input": few, "scale": scale}, back, name="y")
    emitted = emit(double("8.6"), r.finish([y.name]), bytes_of(WEIGHTS))
    trt, definition = emitted.trt, emitted.definition
    assert definition.get_input(0).dtype is definition.get_output(0).dtype is trt.DataType.HALF
    kinds = [layer._row.kind for layer in definition._layers]
    assert kinds == ["cast", "constant", "quantize", "dequantize"]


@pytest.mark.parametrize("release", ["10.3", "11.1"])
def test_later_releases_are_given_the_types_as_they_are(release: str) -> None:
    trt = double(release)
    emitted = emit(trt, quantized(), bytes_of(WEIGHTS))
    parts = {layer.name: layer for layer in emitted.definition._layers}
    assert parts["a"].get_output(0).dtype is trt.DataType.HALF
    assert {"half", "wide", "answer"} <= set(parts)


def test_only_scales_beside_other_types_widen() -> None:
    networks = [(case.kind, dtype, case.network(dtype, dynamic=False)) for case, dtype in VARIANTS]
    found = {(kind, dtype) for kind, dtype, network in networks if is_widened(network)}
    assert found == {("quantize", "HALF"), ("dequantize", "HALF")}
