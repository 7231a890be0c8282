# SPDX-License-Identifier: Apache-2.0
"""Which segments get an engine here, which wait for the device, and what the cache is asked."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.packager.machines import ADA, facts, without_gpu
from trtpack.engines import Bench, BuiltEngine, Job, build_engine, progress_text
from trtpack.options import Options
from trtpack.tactic_book import TacticBook
from trtpack.target import Target, catalogue, find_target
from trtpack.target.native import native_target
from trtpack_runtime import builders
from trtpack_runtime.builders import Outcome, Work
from trtpack_runtime.engine_store import EngineStore
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_runtime.program import Segment
from trtpack_runtime.progress import Progress
from trtpack_tools.recorder import Recorder


def network(alpha: float = 0.1, *, axis: int = 0, profiles: tuple[Profile, ...] = ()) -> Network:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 2)))
    weight = recorder.constant("FLOAT", (2, 2), "weight")
    attributes = {"type": "LEAKY_RELU", "alpha": alpha}
    (y,) = recorder.add("activation", {"input": x}, attributes, name="a/relu")
    (z,) = recorder.add("concatenation", {"inputs": [y, weight]}, {"axis": axis}, name="a/cat")
    return replace(recorder.finish([z.name]), profiles=profiles)


X = Tensor("x", "FLOAT", (2, 2))
NETWORK = Job(
    Segment("forward_0", "network", {"x": "x"}, {"y": "y"}, network="networks/0.json"),
    (X,),
    None,
    network(),
    {"weight": "0" * 64},
)
ATEN = Job(
    Segment("forward_1", "aten", {"x": "x"}, {"y": "y"}, graph={"nodes": []}), (X,), None, None, {}
)
NATIVE = native_target(facts(), catalogue().devices.values())


class Builder:
    """Stands for an engine kind's builder: writes a file, keeps what it was given."""

    def __init__(self, kind: str) -> None:
        self.known, self.works = builders.BUILDERS[kind], list[Work]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.known, name)

    def build(self, work: Work, plan: Path, site: Any, on_event: Any) -> Outcome:
        self.works.append(work)
        on_event({"phase": "Tactics", "step": 1, "steps": 4})
        assert work.on_log is not None
        work.on_log("INFO: built")
        plan.write_bytes(b"engine")
        return Outcome({"made": "here"}, b"cache", None)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> dict[str, Builder]:
    made = {kind: Builder(kind) for kind in ("tensorrt", "tensorrt-rtx")}
    monkeypatch.setattr(builders, "BUILDERS", made)
    return made


def bench(folder: Path, here: dict[str, Any], **options: Any) -> Bench:
    chosen = Options(targets=(), **options)
    store = EngineStore(folder / "cache")
    weights = folder / "weights.safetensors"
    return Bench("net", chosen, here, weights, folder, store, TacticBook(chosen, here, None))


def engine(
    job: Job, target: str | Target, folder: Path, here: dict[str, Any] | None = None, **options: Any
) -> BuiltEngine | None:
    chosen = find_target(target) if isinstance(target, str) else target
    where = bench(folder, here or without_gpu(), **options)
    return build_engine(job, chosen, where, lambda _: None)


@pytest.mark.parametrize(
    ("job", "target", "kind"),
    [(NETWORK, "rtx-4090", "reference"), (ATEN, "orin", "reference")],
)
def test_some_segments_run_without_one(
    job: Job, target: str, kind: Any, tmp_path: Path, builds: dict[str, Builder]
) -> None:
    assert engine(job, target, tmp_path, engine=kind) is None
    assert builds["tensorrt-rtx"].works == []


def test_this_machines_gpu_gets_its_engine_here(tmp_path: Path, builds: dict[str, Builder]) -> None:
    made = engine(NETWORK, NATIVE, tmp_path, facts(), optimization_level=2)
    assert made is not None
    assert (made.kind, made.deferred, made.cached, made.nbytes) == ("tensorrt", None, False, 6)
    (work,) = builds["tensorrt"].works
    assert work.options["optimization_level"] == 2
    assert work.options["workspace_bytes"] == facts()["gpus"][0]["memory_bytes"] // 2
    assert work.options == made.options
    assert made.needs_bytes is not None
    assert made.needs_bytes >= 16
    again = engine(NETWORK, NATIVE, tmp_path, facts(), optimization_level=2)
    assert again is not None
    assert (again.cached, again.record, len(builds["tensorrt"].works)) == (True, made.record, 1)


@pytest.mark.parametrize(
    ("target", "here", "reason"),
    [
        ("orin", without_gpu(), "there is no NVIDIA GPU"),
        ("orin", facts(arch="aarch64"), r"NVIDIA H200 is SM 9\.0, not 8\.7"),
        ("h200", facts(), r"this machine has TensorRT 8\.6\.0, not 10\.16"),
        ("h200", facts(tensorrt=None), "TensorRT is not installed"),
        ("rtx-4090", facts(), "TensorRT-RTX is not installed"),
    ],
)
def test_what_this_host_cannot_build_is_left_to_the_device(
    target: str, here: dict[str, Any], reason: str, tmp_path: Path, builds: dict[str, Builder]
) -> None:
    made = engine(NETWORK, target, tmp_path, here, sparse=True)
    assert made is not None
    assert (made.path, made.nbytes) == (None, 0)
    assert made.deferred is not None
    assert re.search(reason, made.deferred)
    assert "left to the device" in made.deferred
    assert made.options is not None
    assert made.options["sparse"] is True  # what the device builds it with
    assert made.content is not None
    assert len(made.content) == 64


def test_without_a_compiler_a_cpu_segment_stays_in_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtpack.engines.shutil.which", lambda _: None)
    made = engine(ATEN, "cpu", tmp_path)
    assert made is not None
    assert "no C++ compiler" in str(made.deferred)
    assert (made.options, made.content) == (None, None)


@pytest.mark.parametrize(
    ("here", "usable", "reason"),
    [
        (facts(gpus=[ADA]), True, None),
        (facts(gpus=[ADA]), False, "PyTorch here cannot use it"),
        (facts(), True, r"NVIDIA H200 is SM 9\.0, not 8\.9"),
        (without_gpu(), True, "there is no NVIDIA GPU"),
    ],
)
def test_pytorch_compiles_for_the_gpu_that_is_here(
    here: dict[str, Any],
    usable: bool,
    reason: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compiled(*given: Any, device: str, **rest: Any) -> dict[str, Any]:
        given[3].write_bytes(b"engine")
        return {"device": device}

    monkeypatch.setattr("torch.cuda.is_available", lambda: usable)
    monkeypatch.setattr("trtpack_runtime.engines._inductor_build.build_in_child", compiled)
    monkeypatch.setattr("trtpack.engines.shutil.which", lambda _: "/usr/bin/c++")
    target = find_target("rtx-4090", "inductor")
    made = engine(ATEN, target, tmp_path, here, engine="inductor")
    assert made is not None
    if reason is None:
        assert (made.kind, made.deferred, made.record) == ("inductor", None, {"device": "cuda"})
    else:
        assert made.path is None
        assert re.search(f"compiles on the GPU it is for, {reason}; it runs in PyTorch there",
                         str(made.deferred))  # fmt: skip


OTHERS = {
    "weights": (replace(NETWORK, digests={"weight": "1" * 64}), {}, {}),
    "slope": (replace(NETWORK, network=network(0.2)), {}, {}),
    "axis": (replace(NETWORK, network=network(axis=1)), {}, {}),
    "profile": (replace(NETWORK, network=network(profiles=(Profile({}),))), {}, {}),
    "level": (NETWORK, {"optimization_level": 5}, {}),
    "workspace": (NETWORK, {"workspace_bytes": 1 << 20}, {}),
    "sparse": (NETWORK, {"sparse": True}, {}),
    "stripped": (NETWORK, {"engine_weights": "refittable"}, {}),
    "driver": (NETWORK, {}, {"driver": {"version": "590.2", "cuda": "13.0"}}),
}


@pytest.mark.parametrize(("job", "options", "here"), OTHERS.values(), ids=list(OTHERS))
def test_what_an_engine_depends_on_makes_another(
    job: Job,
    options: dict[str, Any],
    here: dict[str, Any],
    tmp_path: Path,
    builds: dict[str, Builder],
) -> None:
    engine(NETWORK, NATIVE, tmp_path, facts())
    made = engine(job, NATIVE, tmp_path, facts(**here), **options)
    assert made is not None
    assert not made.cached


def test_targets_of_one_capability_share_an_engine(
    tmp_path: Path, builds: dict[str, Builder]
) -> None:
    first, second = (
        engine(NETWORK, target, tmp_path, workspace_bytes=1 << 30, engine="tensorrt-rtx")
        for target in ("rtx-4090", "l4")
    )
    assert first is not None
    assert second is not None
    assert (first.cached, second.cached) == (False, True)


def test_a_disk_that_keeps_nothing_only_costs_time(
    tmp_path: Path, builds: dict[str, Builder]
) -> None:
    (tmp_path / "cache").write_text("no folder")
    for _ in range(2):
        made = engine(NETWORK, "rtx-4090", tmp_path)
        assert made is not None
        assert (made.cached, made.nbytes) == (False, 6)


def test_progress_and_tensorrts_lines_are_told(
    tmp_path: Path, builds: dict[str, Builder], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "trtpack.tensorrt")
    shown: list[str] = []
    build_engine(NETWORK, find_target("rtx-4090"), bench(tmp_path, without_gpu()), shown.append)
    assert shown == ["2 layers", "tactics 25 %"]
    assert ("trtpack.tensorrt", 10, "INFO: built") in caplog.record_tuples


def test_progress_says_what_is_left() -> None:
    progress = Progress("forward_0", 3, "tactics", 0.5, 10.0, 12.0)
    assert progress_text(progress) == "tactics 50 %, about 12 s left"


def test_an_engine_for_this_hosts_gpu_by_tensorrt_rtx(
    tmp_path: Path, builds: dict[str, Builder]
) -> None:
    here = facts(gpus=[ADA], tensorrt=None, tensorrt_rtx="1.7.1.116")
    made = engine(NETWORK, native_target(here), tmp_path, here)
    assert made is not None
    assert (made.kind, made.nbytes, made.tactics) == ("tensorrt-rtx", 6, None)


def test_what_the_compiler_prints_goes_to_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def compiled(
        graph: Any, weights: Any, inputs: Any, output: Path, **rest: Any
    ) -> dict[str, Any]:
        output.write_bytes(b"engine")
        rest["log"]("a compiler's warning")
        return {}

    monkeypatch.setattr("trtpack_runtime.engines._inductor_build.build_in_child", compiled)
    monkeypatch.setattr("trtpack.engines.shutil.which", lambda _: "/usr/bin/c++")
    shown: list[str] = []
    caplog.set_level("DEBUG")
    build_engine(ATEN, find_target("cpu"), bench(tmp_path, without_gpu()), shown.append)
    assert shown == ["compiling C++"]
    assert caplog.record_tuples == [("trtpack.inductor", 10, "a compiler's warning")]
