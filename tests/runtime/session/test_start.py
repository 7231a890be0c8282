# SPDX-License-Identifier: Apache-2.0
"""Opening a session: what is chosen, what is refused, and that nothing stays behind."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from tests.runtime import handmade
from tests.runtime.session.bundles import FACTS, Made
from tests.runtime.session.conftest import Lab
from tests.runtime.session.cuda_double import Error
from tests.runtime.session.nets import CHAIN, DOUBLE, NETS, some
from trtpack_runtime import device_builds
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.errors import BundleError, ConfigError, DeviceError
from trtpack_runtime.finish import Finished
from trtpack_runtime.manifest import EngineRef
from trtpack_runtime.rewrite import rewrite
from trtpack_runtime.session import Session, start

HEAD = {
    "schema": "trtpack.aten/1",
    "inputs": ["y"],
    "outputs": ["z"],
    "nodes": [{"name": "z", "op": "aten.erfinv.default", "args": [{"value": "y"}], "kwargs": {}}],
}
HYBRID = Made(
    DOUBLE.inputs, [("z", "FLOAT", DOUBLE.outputs[0][2])], DOUBLE.segments, values=("z",), aten=HEAD
)


def test_a_segment_that_needs_pytorch_is_named(lab: Lab) -> None:
    message = "segment head of orin needs PyTorch: it runs aten.erfinv.default"
    with pytest.raises(DeviceError, match=message) as refusal:
        lab.session(NETS, HYBRID)
    assert refusal.value.hint.startswith("load it with trtpack_runtime.load")


def test_a_machine_that_no_variant_fits(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.machine(NETS)
    path = lab.bundle(NETS, {"forward": DOUBLE})
    monkeypatch.setattr(start, "facts", lambda: {**FACTS, "tensorrt": None})
    with pytest.raises(BundleError, match="no variant fits this machine: orin: TensorRT is not"):
        Session(path)
    monkeypatch.setattr(start, "facts", lambda: {**FACTS, "torch": "2.5", "gpus": []})
    with pytest.raises(BundleError, match="no variant fits this machine: orin: there is no NVIDIA"):
        Session(path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "encode"}, ConfigError, "no method 'encode', it has forward"),
        ({"target": "orinn"}, ConfigError, "no variant 'orinn'"),
        ({"device": 1}, DeviceError, "there is no GPU 1, this machine has 1"),
        ({"stream": 0}, ConfigError, "cannot work on the default stream"),
        ({"shapes": 0}, ConfigError, "are 1 at least"),
    ],
)
def test_a_wrong_option(lab: Lab, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lab.session(NETS, DOUBLE, **options)


def test_a_variant_that_only_pytorch_runs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = handmade.write(tmp_path / "b.tar")
    here = {**FACTS, "torch": "2.5", "gpus": []}
    monkeypatch.setattr(start, "facts", lambda: here)
    with pytest.raises(DeviceError, match="segment forward_0 of cpu needs PyTorch") as caught:
        Session(path)
    assert "trtpack_runtime.load" in caught.value.hint
    monkeypatch.setattr(start, "facts", lambda: {**here, "torch": None})
    with pytest.raises(BundleError, match="cpu: PyTorch is not installed"):
        Session(path)


def test_the_binding_of_cuda_11_will_do(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.machine(NETS)
    path = lab.bundle(NETS, {"forward": DOUBLE})
    for name in ("cuda", "cuda.bindings", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cuda.cudart", lab.cuda)
    assert lab.kept(Session(path)).run([some()])["y"].shape == (2, 3)


def test_no_driver(lab: Lab) -> None:
    lab.machine(NETS)
    path = lab.bundle(NETS, {"forward": DOUBLE})
    lab.cuda.fails["cudaGetDeviceCount"] = Error.cudaErrorInsufficientDriver
    with pytest.raises(DeviceError, match=r"driver is missing.*: cudaErrorInsufficientDriver, in"):
        Session(path)


def test_an_engine_of_another_segment(lab: Lab) -> None:
    lab.machine({**NETS, "double": NETS["fixed"], "fixed": NETS["double"]})
    path = lab.bundle(NETS, {"forward": DOUBLE})
    other = {**NETS, "double": NETS["whole"]}
    lab.machine(other)
    with pytest.raises(BundleError, match="the engine is of another segment"):
        Session(path)
    nets = dict(NETS)
    nets["double"] = type(NETS["double"])(
        {"x": ("HALF", NETS["double"].inputs["x"][1])},
        NETS["double"].outputs,
        NETS["double"].compute,
        NETS["double"].profiles,
    )
    lab.machine(nets)
    with pytest.raises(BundleError, match="engine's x is HALF, the bundle's FLOAT"):
        Session(path)
    assert lab.cuda.leaked() == []


def test_a_damaged_plan(lab: Lab) -> None:
    lab.machine({})
    path = lab.bundle(NETS, {"forward": DOUBLE})
    with pytest.raises(BundleError, match=r"no plan, a damaged one, .*: magic tag"):
        Session(path)
    assert lab.cuda.leaked() == []


@pytest.mark.parametrize(
    "name", ["cudaMalloc", "cudaStreamCreateWithFlags", "cudaEventCreateWithFlags"]
)
def test_what_cuda_refuses_leaves_nothing_behind(lab: Lab, name: str) -> None:
    lab.machine(NETS)
    path = lab.bundle(NETS, {"forward": CHAIN})
    lab.cuda.fails[name] = Error.cudaErrorMemoryAllocation
    message = rf"the GPU is out of memory: {name} failed.*: cudaError"
    with pytest.raises(DeviceError, match=message), Session(path) as session:
        session.run([some()])
    assert lab.cuda.leaked() == []


def test_a_call_without_room_leaves_the_session_usable(lab: Lab) -> None:
    session = lab.session(NETS, CHAIN)
    session.run([some(1)])
    held = sum(len(memory) for memory in lab.cuda.device_memory.values())
    lab.cuda.free_bytes = held
    with pytest.raises(DeviceError, match="the GPU is out of memory"):
        session.run([some(4)])
    assert session.run([some(1)])["sum"].shape == (1, 3)
    lab.cuda.free_bytes = 1 << 30
    assert session.run([some(4)])["sum"].shape == (4, 3)


def test_too_little_memory_is_told_before_anything_is_loaded(lab: Lab) -> None:
    lab.machine(NETS)
    path = lab.bundle(NETS, {"forward": CHAIN})
    lab.cuda.free_bytes = 20
    message = r"orin wants \d+ bytes of GPU memory, 20 bytes are free"
    with pytest.raises(DeviceError, match=message):
        Session(path)
    assert not lab.trt.engines
    session = lab.kept(Session(path, check_memory=False))
    parts = {part.what: part.nbytes for part in session.memory.parts}
    assert set(parts) == {f"engine forward_{i}" for i in range(3)} | {"scratch memory"}


@pytest.mark.parametrize("readable", [True, False])
def test_engines_that_this_machine_builds(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    lab.machine(NETS)
    path = lab.bundle(NETS, {"forward": DOUBLE})
    bundle = open_bundle(path)
    ref = EngineRef("tensorrt", deferred="the device builds it")
    orin = replace(bundle.manifest.variants["orin"], engines={"forward_0": ref})
    rewrite(bundle, path, manifest=replace(bundle.manifest, variants={"orin": orin}))
    plan = tmp_path / "forward_0.plan"
    plan.write_bytes(b"plan double" if readable else b"plan broken")
    record = {"tensorrt": "10.3.0", "options": {}}
    done = Finished("forward_0", "tensorrt", plan, record, False, 3.0, 0.0, "key")
    monkeypatch.setattr(device_builds, "finish_variant", lambda *args, **options: [done])
    if readable:
        session = lab.kept(Session(path))
        assert numpy.array_equal(session.run([some()])["y"], 2 * some())
        assert session.own_engines == {"forward_0": done}
        assert session.choice.chosen.verdict.reason == "built here in 3.0 s"
    else:
        with pytest.raises(BundleError, match="segment forward_0: TensorRT cannot read the engine"):
            Session(path)
