# SPDX-License-Identifier: Apache-2.0
"""The engine kind ``tensorrt``: how plans are loaded, on doubles."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.runtime.engine_records import record
from tests.runtime.trt_double import RELEASES, controls, double
from trtpack_runtime.dims import dim
from trtpack_runtime.engines import LoadContext
from trtpack_runtime.engines._build import build_plan
from trtpack_runtime.engines._emit import emit
from trtpack_runtime.engines._execute import EngineRunner
from trtpack_runtime.engines._graph import GraphRunner
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.engines.tensorrt import load
from trtpack_runtime.errors import BundleError, DeviceError, InputMismatchError, InternalError
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_runtime.program import Segment
from trtpack_runtime.safetensors import TensorView
from trtpack_tools.recorder import Recorder


def network() -> Network:
    """``y = x + w`` of two rows or more, and the positions of its largest values."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (dim("x", 0), 3)))
    i = recorder.input(Tensor("i", "INT64", (2,)))
    w = recorder.constant("FLOAT", (1, 3), "part.weight")
    (y,) = recorder.add("elementwise", {"input1": x, "input2": w}, {"op": "SUM"}, name="part/add")
    (j,) = recorder.add("elementwise", {"input1": i, "input2": i}, {"op": "SUM"}, name="part/add_1")
    ranges = [((1, 3), (2, 3), (4, 3)), ((1, 3), (16, 3), (32, 3))]
    return recorder.finish([y.name, j.name], [Profile({"x": shapes}) for shapes in ranges])


WEIGHTS = {"part.weight": TensorView("part.weight", "F32", (1, 3), memoryview(bytes(12)))}


def plan_of(trt: Any, **options: Any) -> memoryview:
    """The network as a plan of a double."""
    made = BuildOptions(**options)
    return memoryview(bytes(build_plan(trt, network(), {"part.weight": bytes(12)}, made)))


def context(made: dict[str, Any] | None = None, **more: Any) -> LoadContext:
    """What the plan is loaded with."""
    segment = Segment("forward_0", "network", {"x": "x"}, {"y": "y"}, "networks/0.json")
    return LoadContext(
        segment, {}, torch.device("cuda:0"), network(), record=made or record(), **more
    )


@pytest.fixture
def trt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A double in TensorRT's place, and no real device."""
    made = double(getattr(request, "param", "10.3"))
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    return made


@pytest.mark.parametrize("trt", RELEASES, indirect=True)
def test_a_plan_is_loaded(trt: Any) -> None:
    runner = load(plan_of(trt), context())
    assert isinstance(runner, EngineRunner)
    assert (runner.inputs, runner.outputs) == (("x", "i"), ("part/add", "part/add_1"))
    assert runner.engine.num_optimization_profiles == 2
    assert runner.context.engine is runner.engine


@pytest.mark.parametrize("trt", ["10.3", "10.16", "11.1"], indirect=True)
def test_a_stripped_plan_takes_its_weights_from_the_bundle(trt: Any) -> None:
    made = record(weights="stripped")
    runner = load(plan_of(trt, weights="stripped"), context(made, weights=WEIGHTS))
    assert runner.engine.refittable  # type: ignore[attr-defined]  # an EngineRunner


@pytest.mark.parametrize("trt", RELEASES, indirect=True)
def test_a_refittable_plan_takes_new_weights(trt: Any) -> None:
    made = record(weights="refittable") | {"refit": True}
    runner = load(plan_of(trt, weights="refittable"), context(made, weights=WEIGHTS))
    assert isinstance(runner, EngineRunner)


@pytest.mark.parametrize(
    ("options", "graphs"),
    [
        ({}, None),
        ({"cuda_graphs": None}, None),
        ({"cuda_graphs": False, "graphs": 2}, None),
        ({"cuda_graphs": "off", "contexts": 2}, None),
        ({"cuda_graphs": True}, 8),
        ({"cuda_graphs": "on", "graphs": 2}, 2),
        ({"cuda_graphs": "auto", "graphs": 3, "contexts": 2}, 3),
    ],
)
def test_options_of_calls(trt: Any, options: dict[str, Any], graphs: int | None) -> None:
    runner: Any = load(plan_of(trt), context(options=options))
    assert isinstance(runner, GraphRunner) == (graphs is not None)
    assert graphs is None or runner._limit == graphs
    assert runner._lanes._limit == options.get("contexts", 4)
    assert runner.capturable
    assert runner.on_stream_safe


def test_weights_that_are_not_in_the_bundle_are_named(trt: Any) -> None:
    plan, made = plan_of(trt, weights="stripped"), record(weights="stripped")
    with pytest.raises(BundleError, match=r"1 weights .*'part\.weight'") as refusal:
        load(plan, context(made))
    assert refusal.value.wants == ["part.weight"]


def test_weights_of_another_size_are_refused_in_tensorrts_words(trt: Any) -> None:
    view = TensorView("part.weight", "F32", (1, 2), memoryview(bytes(8)))
    plan, made = plan_of(trt, weights="stripped"), record(weights="stripped")
    with pytest.raises(BundleError, match=r"does not take 'part\.weight': setNamedWeights"):
        load(plan, context(made, weights={"part.weight": view}))


def test_a_version_compatible_plan_is_loaded_only_if_trusted(trt: Any) -> None:
    plan, made = plan_of(trt, version_compatible=True), record(version_compatible=True)
    with pytest.raises(BundleError, match="machine code") as refusal:
        load(plan, context(made))
    assert refusal.value.hint == "add --trust if you trust who built it"
    assert isinstance(load(plan, context(made, trust=True)), EngineRunner)


@pytest.mark.parametrize("trt", RELEASES, indirect=True)
def test_a_truncated_plan_is_told(trt: Any) -> None:
    with pytest.raises(BundleError, match="it is no plan, a damaged one") as refusal:
        load(plan_of(trt)[:-9], context())
    assert refusal.value.wants == "TensorRT 10.3.0"
    assert refusal.value.has == f"TensorRT {trt.__version__}"


def test_a_plan_of_another_tensorrt_is_told(trt: Any) -> None:
    with pytest.raises(BundleError, match=r"wants TensorRT 8\.6\.2, .* 10\.3\.0") as refusal:
        load(plan_of(double("8.6")), context())
    assert refusal.value.hint == "let this device build its own engine"


@pytest.mark.parametrize(
    ("said", "kind", "message", "wants", "has"),
    [
        (
            (
                "The engine plan file is not compatible with this version of TensorRT, expecting "
                "library version 8.6.1.6 got 8.5.3.1, please rebuild."
            ),
            BundleError,
            "wants TensorRT 8.5.3.1, this machine has 8.6.1.6",
            "TensorRT 8.5.3.1",
            "TensorRT 8.6.1.6",
        ),
        (
            (
                "The engine plan file is generated on an incompatible device, expecting compute "
                "8.9 got compute 9.0, please rebuild."
            ),
            BundleError,
            "wants SM 9.0, this machine has 8.9",
            "SM 9.0",
            "SM 8.9",
        ),
        (
            "[defaultAllocator.cpp::allocate::21] Error Code 1: Cuda Runtime (out of memory)",
            DeviceError,
            "the GPU is out of memory: TensorRT says",
            None,
            None,
        ),
        (
            "Error Code 2: OutOfMemory (Requested size was 1073741824 bytes)",
            DeviceError,
            "the GPU is out of memory: TensorRT says",
            None,
            None,
        ),
    ],
)
def test_tensorrts_words_for_a_plan_it_does_not_take(
    trt: Any,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    kind: type[Exception],
    message: str,
    wants: str | None,
    has: str | None,
) -> None:
    def refuse(self: Any, *_: Any) -> None:
        self._log("ERROR", said)

    monkeypatch.setattr(trt.Runtime, "deserialize_cuda_engine", refuse)
    with pytest.raises(kind, match=message) as refusal:
        load(plan_of(trt), context())
    assert (getattr(refusal.value, "wants", None), getattr(refusal.value, "has", None)) == (
        wants,
        has,
    )


@pytest.mark.parametrize("severity", ["ERROR", "WARNING"])
@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "CUDA initialization failure with error: 35. Please check your CUDA installation",
            "the NVIDIA driver is missing, or too old for this TensorRT: TensorRT says CUDA init",
        ),
        (
            "CUDA initialization failure with error: 100",
            "there is no NVIDIA GPU: TensorRT says",
        ),
        (
            "Error Code 1: Cuda Runtime (unknown error)",
            "the NVIDIA driver failed: TensorRT says",
        ),
        ("something new", r"TensorRT 10\.3\.0 does not start: something new"),
    ],
)
def test_a_tensorrt_that_does_not_start_is_told(
    trt: Any, monkeypatch: pytest.MonkeyPatch, said: str, message: str, severity: str
) -> None:
    plan = plan_of(trt)

    def fail(logger: Any) -> Any:
        logger.log(SimpleNamespace(name=severity), said)
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt, "Runtime", fail)
    with pytest.raises(DeviceError, match=message):
        load(plan, context())


def test_an_engine_is_for_a_gpu() -> None:
    made = context()
    cpu = LoadContext(made.segment, {}, torch.device("cpu"), made.network)
    with pytest.raises(BundleError, match="is an engine for a GPU, not for cpu"):
        load(memoryview(b"plan"), cpu)
    with pytest.raises(InternalError, match="forward_0 is no built network"):
        load(None, made)


def test_no_tensorrt_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DeviceError, match="cannot import tensorrt") as missing:
        load(memoryview(b"plan"), context())
    assert missing.value.hint.startswith("install tensorrt on this machine")


@pytest.mark.parametrize(("trt", "narrow"), [("8.6", True), ("10.3", False)], indirect=["trt"])
def test_integers_of_64_bits_are_narrow_inside_on_release_8_alone(trt: Any, narrow: bool) -> None:
    runner: Any = load(plan_of(trt), context())
    inside = runner.engine.get_tensor_dtype("i").name
    assert (inside == "INT32") == narrow == bool(runner.borders.narrowed)
    plans = controls(trt).built[-1]
    assert [tensor["dtype"] for tensor in plans["outputs"]] == ["FLOAT", inside]


def test_wrong_types_are_told_before_anything_runs(trt: Any) -> None:
    runner = load(plan_of(trt), context())
    with pytest.raises(InputMismatchError, match="input x: wanted FLOAT on cuda:0, got HALF"):
        runner([torch.rand(2, 3).half(), torch.zeros(2).long()])


def test_integers_stay_inside_a_stripped_plan_since_shapes_may_follow_from_them() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    w = recorder.constant("FLOAT", (2, 3), "part.weight")
    table = recorder.constant("INT64", (2,), "part.table")
    (y,) = recorder.add("elementwise", {"input1": x, "input2": w}, {"op": "SUM"}, name="y")
    (z,) = recorder.add(
        "gather", {"input": y, "indices": table}, {"mode": "DEFAULT", "axis": 0}, name="z"
    )
    stored = {"part.weight": bytes(24), "part.table": bytes(16)}
    trt = double("10.3")
    emit(trt, recorder.finish([z.name]), stored, refittable=True)
    assert set(controls(trt).networks[-1]._refittable) == {"part.weight"}
