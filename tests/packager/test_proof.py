# SPDX-License-Identifier: Apache-2.0
"""What proves a bundle: its engines where this host has their GPU, else the evaluator."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.packager.machines import facts, without_gpu
from trtpack import proof
from trtpack.engines import BuiltEngine
from trtpack.proof import prove, runs_engines
from trtpack.target import find_target
from trtpack.target.native import native_target
from trtpack_runtime.errors import CompileError

NATIVE = native_target(facts())
BUILT = BuiltEngine("forward_0", "tensorrt", Path("forward_0.plan"), {})
DEFERRED = BuiltEngine("forward_0", "tensorrt", deferred="no GPU")


class Loaded:
    """Stands for a loaded bundle whose golden samples pass or do not."""

    def __init__(self, failure: str | None, *, degraded: bool = False) -> None:
        self.failure, self.degraded, self.asked = failure, degraded, dict[str, Any]()

        self.failed_engines: dict[str, str] = {}

    def load(self, path: Path, **asked: Any) -> Loaded:
        self.asked = asked
        return self

    def smoke(self) -> Any:
        worst = SimpleNamespace(output="logits", sample="golden/0", failure=self.failure)
        guilty = SimpleNamespace(told="segment 1 of 2 is the first that departs")
        departures = () if self.failure is None else (guilty,)
        return SimpleNamespace(passed=self.failure is None, worst=worst, departures=departures)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "work" / "b.tar"
    path.parent.mkdir()
    path.write_bytes(b"bundle")
    return path


def test_engines_built_here_run_on_the_gpu(
    cuda: None, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Loaded(None)
    monkeypatch.setattr(proof, "load", loaded.load)
    done = prove(bundle, NATIVE, [BUILT], facts(), tmp_path / "failed.tar")
    assert done.device == "NVIDIA H200"
    assert loaded.asked == {"target": "native", "device": "cuda", "build": False}


def test_an_engine_that_does_not_load_proves_nothing(
    cuda: None, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Loaded(None, degraded=True)
    loaded.failed_engines["forward_0"] = "TensorRT cannot read the engine"
    monkeypatch.setattr(proof, "load", loaded.load)
    with pytest.raises(CompileError, match=r"forward_0 for native does not load: TensorRT cannot"):
        prove(bundle, NATIVE, [BUILT], facts(), tmp_path / "failed.tar")
    assert (tmp_path / "failed.tar").exists()


def test_what_did_not_run_in_its_engines_does_not_prove_them(
    cuda: None, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "load", Loaded(None, degraded=True).load)
    assert prove(bundle, NATIVE, [BUILT], facts(), tmp_path / "failed.tar").device is None


@pytest.mark.parametrize(
    ("target", "engines", "here"),
    [
        (NATIVE, [DEFERRED], facts()),
        (NATIVE, [], facts()),
        (find_target("orin"), [BUILT], facts()),
        (NATIVE, [BUILT], without_gpu()),
    ],
    ids=["deferred", "none", "another GPU", "no GPU"],
)
def test_else_the_evaluator_does(
    target: Any, engines: list[BuiltEngine], here: dict[str, Any], cuda: None
) -> None:
    assert runs_engines(target, engines, here) is None


def test_without_a_pytorch_for_the_gpu_the_evaluator_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runs_engines(NATIVE, [BUILT], facts()) is None


def test_a_wrong_engine_names_the_output_and_keeps_the_bundle_to_debug(
    cuda: None, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "load", Loaded("cosine 0.31").load)
    failed = tmp_path / "b.failed.tar"
    with pytest.raises(CompileError, match=r"logits of golden/0: cosine 0\.31") as caught:
        prove(bundle, NATIVE, [BUILT], facts(), failed)
    assert caught.value.hint.endswith(f"trtpack debug accuracy {failed}")
    assert failed.read_bytes() == b"bundle"


def test_a_wrong_program_keeps_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Loaded("cosine 0.31")
    monkeypatch.setattr(proof, "load", loaded.load)
    failed = tmp_path / "b.failed.tar"
    with pytest.raises(CompileError, match=r"program for orin .* logits of golden/0"):
        prove(bundle, find_target("orin"), [DEFERRED], without_gpu(), failed)
    assert loaded.asked["device"] == "cpu"
    assert not failed.exists()
