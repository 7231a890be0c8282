# SPDX-License-Identifier: Apache-2.0
"""A start: its phases, its memory, answers before the engines are there, and what may go wrong."""

from __future__ import annotations

import threading
import time
import warnings
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from tests.runtime import running, starts
from tests.runtime.gpu_double import gpu_of
from tests.runtime.starts import Engines, X
from trtpack_runtime import Pool, free_memory, load, phases
from trtpack_runtime.errors import BundleError, DeviceError, DeviceLostError
from trtpack_runtime.free_memory import TrimmedWarning, fitted
from trtpack_runtime.loading import DegradedWarning
from trtpack_runtime.memory_plan import MemoryPlan, Part
from trtpack_runtime.phases import LoadTimes, phase
from trtpack_runtime.starting import LOADING


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engines:
    return starts.on_h200(monkeypatch, tmp_path)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return starts.write(tmp_path / "bundle.tar")


# --- phases --------------------------------------------------------------------------------------
def test_a_phase_within_another_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 7.0])
    monkeypatch.setattr(phases.time, "perf_counter", lambda: next(clock))
    times = LoadTimes()
    with times.measuring(), phase("map"), phase("verify"):
        pass
    assert times.seconds == {"verify": 2.0, "map": 5.0}
    assert list(times.seconds) == ["verify", "map"]
    assert times.to_json() == {"verify": 2.0, "map": 5.0, "total": 7.0}
    assert (times + times).total == 14.0


def test_a_phase_that_nobody_measures_costs_nothing() -> None:
    with phase("map"):
        pass
    assert LoadTimes().seconds == {}


def test_a_start_tells_its_phases(bundle: Path, engines: Engines) -> None:
    engines.seconds = 0.02
    module = load(bundle, warm_up=True)
    assert [*module.times.seconds] == ["open", "verify", "resolve", "map", "deserialise", "warm-up"]
    assert module.times.seconds["deserialise"] >= 0.04
    assert module.ready
    assert not module.degraded


def test_making_room_to_run_is_a_phase_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, times = running.Trt(gpu_of(monkeypatch)), LoadTimes()
    with times.measuring(), phase("deserialise"):
        running.runner(trt)
    assert [*times.seconds] == ["deserialise", "context"]


def test_full_verification_refuses_what_lazy_leaves_to_pytorch(
    bundle: Path, engines: Engines
) -> None:
    data = bytearray(bundle.read_bytes())
    data[data.index(starts.PLAN)] ^= 1
    bundle.write_bytes(data)
    with pytest.raises(BundleError, match=r"engines/h200/forward_0.plan is corrupt"):
        load(bundle, verify="full")
    with pytest.warns(DegradedWarning, match="forward_0 runs in PyTorch"):
        module = load(bundle)
    assert list(module.failed_engines) == ["forward_0"]
    assert "is corrupt" in module.failed_engines["forward_0"]
    torch.testing.assert_close(module(X), starts.wanted())


# --- degraded, not dead --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BundleError("TensorRT cannot read the engine"), "cannot read the engine"),
        (DeviceError("the GPU is out of memory"), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."), "2.00 GiB more"),
    ],
)
def test_an_engine_that_does_not_load_leaves_its_segment_to_pytorch(
    bundle: Path, engines: Engines, error: Exception, reason: str
) -> None:
    engines.refuse["forward_1"] = error
    with pytest.warns(DegradedWarning, match="forward_1 runs in PyTorch"):
        module = load(bundle)
    assert [s.kind for s in module.segments()] == ["tensorrt", "reference"]
    assert reason in module.failed_engines["forward_1"]
    assert module.degraded
    assert module.smoke().passed
    with pytest.raises((BundleError, DeviceError)):
        load(bundle, strict=True)


def test_a_bug_is_no_reason_to_go_on(bundle: Path, engines: Engines) -> None:
    engines.refuse["forward_0"] = RuntimeError("list index out of range")
    with pytest.raises(RuntimeError, match="list index"):
        load(bundle)


def test_a_fault_that_lasts_ends_the_start(bundle: Path, engines: Engines) -> None:
    engines.refuse["forward_0"] = RuntimeError(
        "CUDA error: an illegal memory access was encountered"
    )
    with pytest.raises(DeviceLostError, match="this process cannot use the GPU any more"):
        load(bundle)


# --- the segment to blame ------------------------------------------------------------------------
@pytest.mark.parametrize("number", [1, 2])
def test_the_first_segment_that_departs_is_named(
    bundle: Path, engines: Engines, number: int
) -> None:
    name = f"forward_{number - 1}"
    engines.error[name] = 0.5
    module = load(bundle)
    report = module.smoke()
    (found,) = report.departures
    assert (found.segment, found.number, found.count) == (name, number, 2)
    assert found.layers == "product .. relu"
    assert found.passes_in_pytorch
    with pytest.raises(Exception, match=rf"segment {number} of 2 \({name}, tensorrt: .*PyTorch it"):
        report.raise_for_failure()
    assert [s.kind for s in module.segments()] == ["tensorrt", "tensorrt"]


def test_a_segment_that_computes_something_else_is_left_to_pytorch_on_request(
    bundle: Path, engines: Engines
) -> None:
    engines.error["forward_0"] = 0.5
    module = load(bundle)
    report = module.smoke(degrade=True)
    assert report.passed
    assert [d.segment for d in report.departures] == ["forward_0"]
    assert [s.kind for s in module.segments()] == ["reference", "tensorrt"]
    assert "of its size" in module.failed_engines["forward_0"]
    assert module.smoke().passed


def test_without_room_for_pytorch_the_engine_is_named_all_the_same(
    bundle: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.error["forward_0"] = 0.5
    module = load(bundle)

    def full(segment: str, reason: str) -> NoReturn:
        raise DeviceError("the GPU is out of memory")

    monkeypatch.setattr(module, "put_in_pytorch", full)
    (found,) = module.smoke(degrade=True).departures
    assert (found.segment, found.passes_in_pytorch) == ("forward_0", False)
    assert [s.kind for s in module.segments()] == ["tensorrt", "tensorrt"]


def test_two_engines_to_blame_are_both_named(bundle: Path, engines: Engines) -> None:
    engines.error |= {"forward_0": 0.5, "forward_1": 0.5}
    module = load(bundle)
    assert [d.segment for d in module.smoke(degrade=True).departures] == ["forward_0", "forward_1"]
    torch.testing.assert_close(module(X), starts.wanted())


# --- a fast start --------------------------------------------------------------------------------
def test_it_answers_before_its_engines_are_there(bundle: Path, engines: Engines) -> None:
    go = threading.Event()
    engines.during = lambda: go.wait(10) and None
    module = load(bundle, start="fast")
    assert not module.ready
    assert module.degraded
    assert module.failed_engines == dict.fromkeys(("forward_0", "forward_1"), LOADING)
    torch.testing.assert_close(module(X), starts.wanted())
    assert not module.wait_ready(0.01)
    go.set()
    assert module.wait_ready(10)
    assert [s.kind for s in module.segments()] == ["tensorrt", "tensorrt"]
    assert not module.degraded
    assert "deserialise" in module.times.seconds
    torch.testing.assert_close(module(X), starts.wanted())


def test_calls_go_on_while_it_switches(bundle: Path, engines: Engines) -> None:
    engines.seconds = 0.05
    module = load(bundle, start="fast")
    until, kinds = time.monotonic() + 10, set()
    while not (module.ready and "tensorrt" in kinds) and time.monotonic() < until:
        kinds.add(module.segments()[0].kind)
        torch.testing.assert_close(module(X), starts.wanted())
    assert kinds == {"reference", "tensorrt"}


def test_what_was_configured_meanwhile_stays(bundle: Path, engines: Engines) -> None:
    go = threading.Event()
    engines.during = lambda: go.wait(10) and None
    module = load(bundle, start="fast").configured(outputs="reused")
    go.set()
    assert module.wait_ready(10)
    assert module(X).data_ptr() == module(X).data_ptr()
    assert [s.kind for s in module.segments()] == ["tensorrt", "tensorrt"]


def test_a_pool_waits_for_the_engines(bundle: Path, engines: Engines) -> None:
    engines.seconds = 0.1
    with Pool(load(bundle, start="fast"), workers=2, queue=2) as pool:
        assert engines.loaded == ["forward_0", "forward_1"]
        torch.testing.assert_close(pool.submit(X).result(10), starts.wanted())


def test_a_failed_background_stays_in_pytorch(bundle: Path, engines: Engines) -> None:
    engines.during = lambda: (_ for _ in ()).throw(ValueError("a bug"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        module = load(bundle, start="fast")
        assert module.wait_ready(10)
    assert {w.category for w in said} == {DegradedWarning}
    assert module.degraded
    assert "could not be loaded" in module.failed_engines["forward_0"]
    torch.testing.assert_close(module(X), starts.wanted())


def test_a_failed_background_fails_the_next_call_where_it_is_strict(
    bundle: Path, engines: Engines
) -> None:
    engines.refuse["forward_0"] = BundleError("TensorRT cannot read the engine")
    module = load(bundle, start="fast", strict=True)
    assert module.wait_ready(10)
    with pytest.raises(BundleError, match="cannot read the engine"):
        module(X)


# --- memory --------------------------------------------------------------------------------------
GIB = 1 << 30
PLAN = MemoryPlan((Part("engine a", 2 * GIB), Part("context of a", GIB, certain=False)), GIB, 4)


@pytest.mark.parametrize(
    ("free_gib", "graphs", "contexts", "graphs_after"),
    [
        (8.0, "on", 4, "on"),
        (6.0, "on", 4, "on"),
        (5.9, "on", 3, "on"),
        (4.0, "auto", 2, "auto"),
        (3.0, "on", 1, "on"),
        (2.5, "on", 1, "off"),
        (2.5, False, 1, False),
    ],
)
def test_what_does_not_fit_is_trimmed(
    free_gib: float, graphs: object, contexts: int, graphs_after: object
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        plan, options = fitted(
            PLAN, int(free_gib * GIB), {"cuda_graphs": graphs}, "GPU memory", "orin"
        )
    assert plan.contexts == contexts
    assert options.get("contexts", 4) == contexts
    assert options["cuda_graphs"] == graphs_after
    assert len(said) == (contexts < 4) + (graphs != graphs_after)
    assert all(issubclass(w.category, TrimmedWarning) for w in said)


def test_what_surely_does_not_fit_is_refused() -> None:
    told = r"orin wants 2.0 GiB of GPU memory, 1.5 GiB are free; most of it is for engine a"
    with pytest.raises(DeviceError, match=told):
        fitted(PLAN, GIB + GIB // 2, {}, "GPU memory", "orin")


def test_a_start_is_refused_for_its_records_figures(
    tmp_path: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = starts.write(tmp_path / "large.tar", weights_bytes=GIB, context_bytes=GIB)
    monkeypatch.setattr(free_memory, "free_bytes", lambda device, facts: 3 * GIB)
    with pytest.raises(DeviceError, match=r"h200 wants 4.0 GiB of memory, 3.0 GiB are free"):
        load(path)
    assert load(path, check_memory=False).memory is None
    monkeypatch.setattr(free_memory, "free_bytes", lambda device, facts: 7 * GIB)
    with pytest.warns(TrimmedWarning, match="2 contexts instead of 4"):
        module = load(path)
    assert engines.options["contexts"] == 2
    assert module.memory is not None
    assert module.memory.predicted_bytes >= 4 * GIB
    assert {p.what for p in module.memory.parts} >= {"engine forward_0", "context of forward_1"}
    assert module.memory.to_json()["measured_bytes"] is not None
