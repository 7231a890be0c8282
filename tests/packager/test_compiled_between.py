# SPDX-License-Identifier: Apache-2.0
"""What PyTorch runs between engines of TensorRT: which of it is compiled, where, and that it is
right. The machines with GPUs stand on facts; what is compiled for the CPU runs."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trtpack_runtime
from tests.packager.machines import facts, without_gpu
from trtpack.engines import Bench, BuiltEngine, Job, build_engine
from trtpack.inputs import parse_inputs
from trtpack.options import Options
from trtpack.pipeline import build
from trtpack.report import BuildReport
from trtpack.tactic_book import TacticBook
from trtpack.target import Target, catalogue, find_target
from trtpack.target.native import native_target
from trtpack_runtime.builders import Site
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.compiling import Source, parts
from trtpack_runtime.engine_store import EngineStore, engine_key
from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.loading import DegradedWarning
from trtpack_runtime.network import Tensor
from trtpack_runtime.program import Segment
from trtpack_runtime.rewrite import rewrite

GRAPH = {
    "schema": "trtpack.aten/1",
    "inputs": ["x"],
    "outputs": ["y"],
    "nodes": [{"name": "y", "op": "aten.neg.default", "args": [{"value": "x"}], "kwargs": {}}],
}
JOB = Job(
    Segment("forward_1", "aten", {"x": "x"}, {"y": "y"}, graph=GRAPH),
    (Tensor("x", "FLOAT", (2, 2)),),
    None,
    None,
    {},
)
COMPILER = {"path": "/usr/bin/g++", "version": "12"}
ON_GPU = facts(compiler=COMPILER, torch_cuda="13.0", cpu={"flags": ["avx2", "hypervisor"]})
NATIVE = native_target(ON_GPU, catalogue().devices.values())
COMPILE = "trtpack_runtime.engines._inductor_build.build_in_child"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def engine(
    folder: Path, target: Target, here: dict[str, Any], job: Job = JOB, **options: Any
) -> BuiltEngine | None:
    chosen = Options(**options)
    store = EngineStore(folder / "engines")
    weights = folder / "weights.safetensors"
    where = Bench("net", chosen, here, weights, folder, store, TacticBook(chosen, here, None))
    return build_engine(job, target, where, lambda _: None)


@pytest.mark.parametrize(
    ("target", "here", "options", "reason"),
    [
        ("rtx-4090", without_gpu(), {}, "not compiled on this host, there is no NVIDIA GPU; left"),
        ("orin", ON_GPU, {}, "not compiled on this host, this machine is x86_64, not aarch64;"),
        ("rtx-4090", ON_GPU, {}, "NVIDIA H200 is SM 9.0, not 8.9"),
        ("h200", ON_GPU, {"defer": True}, "left to the device, as was asked"),
    ],
)
def test_a_device_compiles_what_this_host_cannot(
    target: str, here: dict[str, Any], options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    made = engine(tmp_path, find_target(target), here, **options)
    assert made is not None
    assert (made.kind, made.path, made.failed) == ("inductor", None, None)
    assert reason in str(made.deferred)
    assert made.options is not None
    source = Source.of(GRAPH, made.options)
    assert (source.inputs, made.content) == (JOB.inputs, source.content({}))


@pytest.mark.parametrize(
    ("job", "options"),
    [(replace(JOB, compiled=False), {}), (JOB, {"eager": True}), (JOB, {"engine": "reference"})],
)
def test_what_is_not_to_be_compiled_has_no_engine(
    job: Job, options: dict[str, Any], tmp_path: Path
) -> None:
    assert engine(tmp_path, find_target("orin"), without_gpu(), job, **options) is None


def test_the_gpu_that_is_here_gets_it_compiled_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []

    def compiled(graph: Any, weights: Any, inputs: Any, output: Path, **rest: Any) -> Any:
        output.write_bytes(b"engine")
        devices.append(rest["device"])
        return {"made": "here"}

    monkeypatch.setattr(COMPILE, compiled)
    for cached in (False, True):
        made = engine(tmp_path, NATIVE, ON_GPU)
        assert made is not None
        assert (made.kind, made.deferred, made.cached) == ("inductor", None, cached)
    assert devices == ["cuda"]
    assert made is not None
    key = engine_key(parts(str(made.content), Site(ON_GPU, NATIVE.describe())))
    assert EngineStore(tmp_path / "engines").get(key)  # where the device itself would look


class Between(nn.Module):
    """Two parts of PyTorch's between layers of TensorRT's, with weights and a custom operator."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.scale, self.middle = nn.Parameter(torch.rand(8, 1, 1)), nn.Conv2d(8, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        x = torch.sigmoid(x * self.scale) + torch.log1p(x)
        x = self.middle(x).relu().mean((2, 3))
        return self.last(torch.tanh(x).cumsum(1).sin())


KEPT = ("aten.sigmoid", "aten.mul", "aten.log1p", "aten.add")


def hybrid(path: Path, kept: tuple[str, ...] = KEPT, **options: Any) -> BuildReport:
    chosen = Options(
        targets=("rtx-4090",),
        output=path,
        inputs=parse_inputs(["1/2/4x3x12x12"]),
        torch_ops=kept,
        min_block_size=1,
        **options,
    )
    return build(Between().eval(), chosen)


def test_what_cannot_be_compiled_runs_in_pytorch_and_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*given: Any, **rest: Any) -> Any:
        raise EngineBuildError("AOTInductor failed: Loud: no\n  its last line", hint="")

    monkeypatch.setattr(COMPILE, refuse)
    monkeypatch.setattr("trtpack.engines.cannot_compile", lambda site: None)  # as with its GPU
    monkeypatch.setattr("trtpack.engines.parts", lambda content, site: {"content": content})
    with caplog.at_level(logging.WARNING):
        report = hybrid(tmp_path / "bundle.tar", (*KEPT, "aten.tanh", "aten.cumsum"), cache=False)
    (target,) = report.targets
    failed = {e.segment: e.failed for e in target.engines if e.failed}
    torchs = [s.name for s in target.segments if s.kind == "torch"]
    assert failed == dict.fromkeys(torchs, "AOTInductor failed: Loud: no")
    assert len(torchs) == 2
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        f"rtx-4090: PyTorch runs {name} uncompiled, slower: AOTInductor failed: Loud: no"
        for name in torchs
    ]
    line = f"rtx-4090  {torchs[0]}  uncompiled, PyTorch runs it: AOTInductor failed: Loud: no"
    assert line in report.to_text()
    engines = open_bundle(tmp_path / "bundle.tar").manifest.variants["rtx-4090"].engines
    assert not set(engines) & set(torchs)


@pytest.mark.parametrize(("target", "engines"), [("cpu", ["inductor"]), ("orin", [])])
def test_sizes_that_the_data_tells_are_compiled_where_the_whole_model_is(
    target: str, engines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtpack.engines.shutil.which", lambda _: None)  # none is built here

    class Chosen(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.unique(x).cumsum(0).sin()

    chosen = Options(targets=(target,), output=tmp_path / "bundle.tar")
    report = build((Chosen(), (torch.randn(6),)), chosen)
    assert [e.kind for e in report.targets[0].engines] == engines


def on_the_cpu(bundle: Path, path: Path) -> Path:
    """The same, for this machine's CPU: networks by the evaluator, the rest to be compiled."""
    opened = open_bundle(bundle)
    (variant,) = opened.manifest.variants.values()
    target = {**variant.target, "kind": "reference", "sm": None, "arch": os.uname().machine}
    engines = {name: ref for name, ref in variant.engines.items() if ref.kind == "inductor"}
    changed = replace(variant, target=target, engines=engines)
    rewrite(opened, path, manifest=replace(opened.manifest, variants={"rtx-4090": changed}))
    return path


@pytest.mark.slow
def test_compiled_segments_answer_what_the_model_does(tmp_path: Path) -> None:
    report = hybrid(tmp_path / "bundle.tar", defer=True)
    kinds = [s.kind for s in report.targets[0].segments]
    assert kinds.count("torch") == 1
    bundle = on_the_cpu(tmp_path / "bundle.tar", tmp_path / "cpu.tar")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DegradedWarning)
        loaded = trtpack_runtime.load(bundle)
    names = {"tensorrt": "reference", "torch": "inductor"}
    assert [s.kind for s in loaded.segments()] == [names[kind] for kind in kinds]
    assert loaded.smoke().passed
    model = Between().eval()
    for batch in (1, 2, 4):
        x = torch.randn(batch, 3, 12, 12)
        with torch.no_grad():
            torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)
