# SPDX-License-Identifier: Apache-2.0
"""Which segments get an engine here, which wait for the device, and what the cache is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trtpack import engines
from trtpack.engine_cache import EngineCache
from trtpack.engines import BuiltEngine, Job, build_engine
from trtpack.options import Options
from trtpack.target import find_target
from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.network import Network, Tensor
from trtpack_runtime.program import Segment

X = Tensor("x", "FLOAT", (2,))
NETWORK = Job(
    Segment("forward_0", "network", {"x": "x"}, {"y": "y"}, network="networks/0.json"),
    (X,),
    None,
    Network((X,), (), {}, (), {}),
    {"weight": "0" * 64},
)
ATEN = Job(
    Segment("forward_1", "aten", {"x": "x"}, {"y": "y"}, graph={"nodes": []}), (X,), None, None, {}
)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the builders by ones that write a file; answers what they built."""
    built: list[str] = []

    def write(job: Job, *rest: Any) -> dict[str, Any]:
        path = next(p for p in reversed(rest) if isinstance(p, Path))
        path.write_bytes(b"engine")
        built.append(job.segment.name)
        return {"made": "here"}

    monkeypatch.setattr(engines, "_build_rtx", write)
    monkeypatch.setattr(engines, "_build_inductor", write)
    monkeypatch.setattr(engines, "_version", lambda _: "1.0")
    return built


def engine(job: Job, target: str, folder: Path, **options: Any) -> BuiltEngine | None:
    chosen = Options(targets=(target,), **options)
    cache, weights = EngineCache(folder / "cache"), folder / "weights.safetensors"
    return build_engine(job, find_target(target), chosen, weights, folder, cache, lambda _: None)


@pytest.mark.parametrize(
    ("job", "target", "kind"),
    [(ATEN, "rtx-4090", None), (NETWORK, "rtx-4090", "reference"), (ATEN, "orin", None)],
)
def test_some_segments_run_without_one(
    job: Job, target: str, kind: Any, tmp_path: Path, builds: list[str]
) -> None:
    assert engine(job, target, tmp_path, engine=kind) is None
    assert builds == []


def test_a_jetson_builds_its_own(tmp_path: Path, builds: list[str]) -> None:
    made = engine(NETWORK, "orin", tmp_path)
    assert made is not None
    assert (made.kind, made.path, made.nbytes, builds) == ("tensorrt", None, 0, [])
    assert "SM 8.7" in str(made.deferred)


def test_without_tensorrt_rtx_the_device_builds_it(
    tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_version", lambda _: None)
    made = engine(NETWORK, "rtx-4090", tmp_path)
    assert made is not None
    assert "tensorrt-rtx is not installed on this host" in str(made.deferred)


def test_without_a_compiler_a_cpu_segment_stays_in_pytorch(
    tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.shutil, "which", lambda _: None)
    made = engine(ATEN, "cpu", tmp_path)
    assert made is not None
    assert "no C++ compiler" in str(made.deferred)


def test_the_same_engine_is_built_once(tmp_path: Path, builds: list[str]) -> None:
    first, second = (engine(NETWORK, "rtx-4090", tmp_path) for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first.cached, second.cached, builds) == (False, True, ["forward_0"])
    assert second.record == {"made": "here"}
    assert second.path is not None
    assert second.path.read_bytes() == b"engine"


@pytest.mark.parametrize(
    ("job", "options"),
    [
        (replace(NETWORK, digests={"weight": "1" * 64}), {}),
        (NETWORK, {"optimization_level": 5}),
        (NETWORK, {"workspace_bytes": 1 << 20}),
    ],
)
def test_other_weights_or_settings_are_another_engine(
    job: Job, options: dict[str, Any], tmp_path: Path, builds: list[str]
) -> None:
    engine(NETWORK, "rtx-4090", tmp_path)
    made = engine(job, "rtx-4090", tmp_path, **options)
    assert made is not None
    assert not made.cached


def test_rtx_refuses_what_it_has_no_name_for(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    with pytest.raises(EngineBuildError, match=r"no name for SM 8\.7"):
        engine(NETWORK, "orin", tmp_path, engine="tensorrt-rtx")


def test_what_the_compiler_prints_goes_to_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def compiled(
        graph: Any, weights: Any, inputs: Any, output: Path, **rest: Any
    ) -> dict[str, Any]:
        output.write_bytes(b"engine")
        rest["log"]("a compiler's warning")
        return {}

    monkeypatch.setattr("trtpack_runtime.engines.inductor_build.build_in_child", compiled)
    monkeypatch.setattr(engines.shutil, "which", lambda _: "/usr/bin/c++")
    shown: list[str] = []
    caplog.set_level("DEBUG")
    cache = EngineCache(tmp_path / "cache")
    options = Options(targets=("cpu",))
    build_engine(ATEN, find_target("cpu"), options, tmp_path / "w", tmp_path, cache, shown.append)
    assert shown == ["compiling C++"]
    assert caplog.record_tuples == [("trtpack.inductor", 10, "a compiler's warning")]
