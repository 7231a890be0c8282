# SPDX-License-Identifier: Apache-2.0
"""Whole builds in other precisions: what is in the bundle, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trtpack_runtime
from tests.packager.precision.models import attending, convolutional, loud
from trtpack.errors import AccuracyError, ConfigError
from trtpack.options import Budget, Drop, Options, Pin
from trtpack.pipeline import build
from trtpack.report import BuildReport
from trtpack.report.text import render
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.module import BundleModule


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def made(model: Any, path: Path, **options: Any) -> BuildReport:
    return build(model, Options(**{"targets": ("orin",), "output": path} | options))


def test_the_plan_and_the_tolerances_are_in_the_bundle(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    report = made(convolutional(), path, precision="mixed", pins=(Pin("head", "fp32"),), samples=2)
    bundle = open_bundle(path)
    plan = json.loads(bytes(bundle.member("precision/forward.json")))
    assert (plan["asked"], plan["pins"], plan["samples"]) == ("mixed", ["head=fp32"], 2)
    rows = {row["node"]: row for row in plan["nodes"]}
    assert (rows["linear"]["precision"], rows["linear"]["module"]) == ("fp32", "head")
    assert rows["linear"]["why"] == "pinned by head=fp32"
    assert rows["convolution"]["precision"] == "fp16"
    assert report.precision == plan
    bounds = bundle.manifest.methods["forward"].tolerance["output"]
    assert bounds["found"]["by"] == "noise"
    assert 1e-3 <= bounds["rel_l2"] < 2e-2
    (target,) = report.targets
    assert target.accuracy[0].budget == "cosine>=0.999"
    assert target.accuracy[0].top1 == 1.0
    text = render(report)
    assert "Precision mixed: " in text
    assert "Accuracy, within its budget" in text
    assert bundle.manifest.report["precision"] == "mixed: 6 in fp16, 1 in fp32; 2 casts"
    assert "1 aten.linear in fp32: pinned by head=fp32" in text


@pytest.mark.slow
def test_a_build_without_a_precision_tells_its_plan_too(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    report = made(convolutional(), path)
    plan = json.loads(bytes(open_bundle(path).member("precision/forward.json")))
    assert plan["asked"] is None
    assert {(row["precision"], row["why"]) for row in plan["nodes"]} == {
        ("fp32", "as the model has it")
    }
    assert report.targets[0].accuracy == ()
    assert "Precision" not in render(report)


@pytest.mark.slow
def test_tf32_is_for_the_engine_to_use(tmp_path: Path) -> None:
    made(convolutional(), tmp_path / "b.tar", precision="tf32")
    bundle = open_bundle(tmp_path / "b.tar")
    (engine,) = bundle.manifest.variants["orin"].engines.values()
    assert engine.options["tf32"] is True
    found = bundle.manifest.methods["forward"].tolerance["output"]["found"]
    assert 1e-5 < found["rel_l2"]["precision"] < 5e-3


def test_a_budget_that_is_missed_names_what_to_pin(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    with pytest.raises(AccuracyError, match="precision fp16 misses its budget") as caught:
        made(loud(), path, precision="fp16")
    assert "mul_1 (models.py:" in str(caught.value)
    assert re.search(
        r"; with these in fp32 cosine of output is (1|0\.9999\d*), within", str(caught.value)
    )
    pins = [Pin(*word.split("=")) for word in str(caught.value.hint).split("'")[1::2]]
    assert not path.exists()
    report = made(loud(), path, precision="fp16", pins=tuple(pins))
    assert report.targets[0].accuracy[0].cosine > 0.9999


def test_pins_that_do_not_keep_the_budget_are_no_hint(tmp_path: Path) -> None:
    def refused(budget: Budget) -> AccuracyError:
        with pytest.raises(AccuracyError) as caught:
            made(convolutional(), tmp_path / "b.tar", precision="fp16", budgets=(budget,))
        return caught.value

    error = refused(Budget("max_abs", 1e-6, "output"))
    told = r"with these in fp32 max_abs of output is \d\S+, the best that was found$"
    assert re.search(told, str(error))
    assert error.hint == "choose --precision fp32, or another budget"
    error = refused(Budget("max_abs", 0.0, "output"))
    assert re.search(r"; not even float32 keeps it, where max_abs of output is \d", str(error))
    assert error.hint == "choose another budget"


@pytest.mark.slow
def test_a_metric_that_drops_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precise.py").write_text(
        "import torch\n"
        "def sharpness(model):\n"
        "    torch.manual_seed(0)\n"
        "    return -float(model(torch.randn(2, 3, 8, 8)).double().sum().abs())\n"
    )
    metric = f"{tmp_path}/precise.py:sharpness"
    wide = {"metric": metric, "precision": "mixed", "max_drop": Drop(0.5, True)}
    report = made(convolutional(), tmp_path / "b.tar", **wide)
    (row,) = (one for one in report.targets[0].accuracy if one.what == metric)
    assert row.value != row.of_model
    with pytest.raises(AccuracyError, match=r"at least 1e\+06 is wanted, and the model itself"):
        made(
            convolutional(),
            tmp_path / "c.tar",
            metric=metric,
            precision="mixed",
            budgets=(Budget("metric", 1e6),),
        )
    assert not (tmp_path / "c.tar").exists()


def test_what_is_wrong_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"SM 7\.5 has no bfloat16"):
        made("no.such:model", tmp_path / "b.tar", targets=("t4",), precision="bf16")
    with pytest.raises(ConfigError, match="--max-drop is without a metric"):
        made("no.such:model", tmp_path / "b.tar", max_drop=Drop(0.1, True))


@pytest.mark.slow
@pytest.mark.parametrize(("target", "engine"), [("rtx-4090", None), ("cpu", "reference")])
def test_programs_of_other_targets_agree(tmp_path: Path, target: str, engine: Any) -> None:
    module, args = attending()
    made((module, args), tmp_path / "b.tar", targets=(target,), engine=engine, precision="mixed")
    loaded = trtpack_runtime.load(tmp_path / "b.tar", device="cpu")
    got, wanted = loaded(*args), module(*args)
    assert got.dtype == torch.float32
    assert float((got - wanted).norm() / wanted.norm()) < 3e-3


@pytest.mark.slow
def test_state_is_judged_by_the_plans_noise_too(tmp_path: Path) -> None:
    class Summing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.total = nn.Linear(8, 8), nn.Buffer(torch.zeros(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total.add_(self.linear(x).sum(0))
            return x + self.total

    torch.manual_seed(0)
    model, x = Summing().eval(), torch.randn(4, 8)
    made((model, (x,)), tmp_path / "b.tar", precision="mixed-bf16")
    found = open_bundle(tmp_path / "b.tar").manifest.methods["forward"].tolerance
    assert found["total"]["found"]["rel_l2"]["precision"] > 1e-4
    assert found["total"]["rel_l2"] > 1e-3


@pytest.mark.slow
def test_what_pytorch_runs_in_between_has_its_types_too(tmp_path: Path) -> None:
    class Middle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.before(x).relu()
            return self.after(y + torch.fft.rfft(y).abs().sum(-1, keepdim=True))

    torch.manual_seed(0)
    model, x = Middle().eval(), torch.randn(2, 8)
    report = made((model, (x,)), tmp_path / "b.tar", precision="mixed", min_block_size=1)
    kinds = [segment.kind for segment in report.targets[0].segments]
    assert kinds == ["tensorrt", "torch", "tensorrt"]
    loaded = trtpack_runtime.load(tmp_path / "b.tar", device="cpu")
    torch.testing.assert_close(loaded(x), model(x), rtol=2e-2, atol=2e-2)


def test_the_budget_is_held_by_what_the_proof_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []
    run = BundleModule.run

    def counted(self: BundleModule, method: str, *args: Any, **kwargs: Any) -> Any:
        runs.append(method)
        return run(self, method, *args, **kwargs)

    monkeypatch.setattr(BundleModule, "run", counted)
    report = made(convolutional(), tmp_path / "b.tar", precision="mixed", samples=2)
    (target,) = report.targets
    assert runs == ["forward", "forward"]
    assert target.accuracy[0].budget == "cosine>=0.999"
    assert 0 < target.accuracy[0].rel_l2 < 2e-2
    loaded = trtpack_runtime.load(tmp_path / "b.tar", target="orin", device="cpu")
    kept: dict[str, list[tuple[torch.Tensor, ...]]] = {}
    assert loaded.smoke(keep=kept).passed
    assert [len(answer) for answer in kept["forward"]] == [1, 1]
