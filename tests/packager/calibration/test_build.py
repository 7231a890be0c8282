# SPDX-License-Identifier: Apache-2.0
"""Quantized builds, through to TensorRT-RTX's engines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trtpack
from tests.packager.calibration.models import residual, uneven
from trtpack.accuracy.reading import parse_budget
from trtpack.errors import AccuracyError, ConfigError, SourceError
from trtpack.options import Drop, Pin
from trtpack.report import BuildReport
from trtpack.report.text import render
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.loading import load
from trtpack_runtime.network import Network, from_bytes

LOADER = """
import torch
torch.manual_seed(3)
loader = [torch.randn(4, 3, 16, 16) for _ in range(3)]
"""


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds the residual model, or another; ``options`` as of ``trtpack.Options``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data.py").write_text(LOADER)

    def run(
        precision: str,
        target: str = "rtx-4090",
        data: bool = True,
        model: Any = None,
        **options: Any,
    ) -> BuildReport:
        given = f"{tmp_path / 'data.py'}:loader" if data else None
        chosen = trtpack.Options(
            targets=(target,),
            output=tmp_path / "q.tar",
            precision=precision,  # type: ignore[arg-type]  # one of them
            calibrate=given,
            **options,
        )
        return trtpack.build(model or residual(), options=chosen).report

    return run


def test_int8_becomes_an_engine_and_is_told(build: Any, tmp_path: Path) -> None:
    report = build("int8")
    text = render(report)
    assert "Quantized to INT8: 5 products, 8 values, 5 weights; ranges by entropy, from 3" in text
    assert "quantize 13" in " ".join(text.split())
    (engine,) = report.targets[0].engines
    assert engine.kind == "tensorrt-rtx"
    kinds = [layer.kind for layer in network_of(tmp_path / "q.tar").layers]
    assert kinds.count("quantize") == kinds.count("dequantize") == 13


def test_the_report_names_what_was_left(build: Any) -> None:
    model, args = residual()
    nn.init.zeros_(model.norm.weight)
    nn.init.constant_(model.norm.bias, -1.0)
    text = " ".join(render(build("int8", model=(model, args), budgets=())).split())
    assert re.search(r"left as .*: every number of it is 0: \S+", text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "data", "block"),
    [("fp8", True, None), ("int8-weights", False, None), ("int4", False, 16)],
)
def test_other_types_become_engines(
    build: Any, precision: str, data: bool, block: int | None
) -> None:
    report = build(precision, data=data, weight_block=block)
    (engine,) = report.targets[0].engines
    assert engine.kind == "tensorrt-rtx"


@pytest.mark.slow
def test_a_cpu_rounds_as_the_engine_would(build: Any, tmp_path: Path) -> None:
    build("int8", "cpu", engine="reference")
    module, (x,) = residual()
    loaded = load(tmp_path / "q.tar", device="cpu")
    got, want = loaded(x), module(x)
    assert not torch.equal(got, want)
    assert nn.functional.cosine_similarity(got.flatten(), want.flatten(), 0) > 0.999


@pytest.mark.parametrize(
    ("precision", "options", "told"),
    [
        ("int8", {"data": False}, "--precision int8 needs calibration data"),
        ("int4", {}, "--calibrate is for --precision int8, fp8 and auto, not for int4"),
        ("int8-weights", {}, "not for int8-weights"),
        ("mixed", {}, "not for mixed"),
        ("mixed", {"data": False, "weight_block": 64}, "int8-weights and auto, not for mixed"),
        ("int8-weights", {"data": False, "weight_block": 0}, "weight_block is 0, wanted at least"),
        ("fp8", {"observer": "entropy"}, "--observer entropy compares 128 equal steps"),
        ("fp8", {"target": "orin"}, "SM 8.7 has no FP8"),
        ("int4", {"data": False, "target": "orin@jetpack-6.0"}, "TensorRT 8.6.2 has no INT4"),
        ("int8", {"calibration_samples": 0}, "calibration_samples is 0, wanted at least 1"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    build: Any, tmp_path: Path, precision: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        build(precision, **options)
    assert not (tmp_path / "q.tar").exists()


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"calibrate": "nothing"}, SourceError, "there is no file or folder nothing"),
        ({"calibrate": "missing.py:loader"}, SourceError, "there is no file missing.py"),
        ({"calibrate": "missing.npz"}, SourceError, "there is no file missing.npz"),
        ({"calibrate": "empty"}, SourceError, "folder empty has no sample files"),
        ({"metric": "accuracy", "max_drop": Drop(0.1, True)}, ConfigError, "bad metric 'accuracy'"),
        ({"metric": "no.py:f", "max_drop": Drop(0.1, True)}, SourceError, "no file no.py"),
    ],
)
def test_data_that_cannot_be_is_refused_before_the_model_is_captured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[Exception],
    told: str,
) -> None:
    monkeypatch.setattr("trtpack.pipeline._planned", pytest.fail)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    given = {"calibrate": f"{__file__}:loader", **options}
    chosen = trtpack.Options(
        targets=("rtx-4090",), output=tmp_path / "q.tar", precision="int8", **given
    )
    with pytest.raises(error, match=told):
        trtpack.build(residual(), options=chosen)


def test_a_budget_that_is_missed_names_what_to_pin(build: Any, tmp_path: Path) -> None:
    model, budget = uneven(), parse_budget("cosine>=0.999")
    torch.save([model[1][0]], tmp_path / "x.pt")
    (tmp_path / "data.py").write_text(
        f"import torch\nloader = torch.load({str(tmp_path / 'x.pt')!r}, weights_only=True)\n"
    )
    with pytest.raises(AccuracyError, match="precision int8 misses its budget") as caught:
        build("int8", observer="minmax", budgets=(budget,), model=model)
    assert "; most is lost at linear_1 (wild (models.py:" in str(caught.value)
    assert re.search(r"with these in fp16 cosine of \w+ is 0\.999\d+, within", str(caught.value))
    assert caught.value.hint == "add --pin 'linear_1=fp16'"
    assert not (tmp_path / "q.tar").exists()
    pins = (Pin("linear_1", "fp16"),)
    report = build("int8", observer="minmax", budgets=(budget,), model=model, pins=pins)
    assert report.targets[0].accuracy[0].cosine >= 0.999


def test_a_budget_that_no_pin_keeps(build: Any) -> None:
    budget = parse_budget("cosine>=0.99999999")
    with pytest.raises(AccuracyError, match=r"at least 0\.99999999 is wanted") as caught:
        build("int8", budgets=(budget,))
    assert str(caught.value).endswith("the best that was found")  # float32 keeps it
    assert str(caught.value.hint).endswith("or let --precision auto search")


def test_weights_of_few_bits_that_lose_too_much_are_named(build: Any) -> None:
    wide = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    budget = parse_budget("cosine>=0.999999")
    with pytest.raises(AccuracyError, match=r"most is lost at linear \(") as caught:
        build("int4", data=False, budgets=(budget,), model=(wide, (torch.randn(4, 128),)))
    assert str(caught.value.hint).startswith("add --pin 'linear=fp16', or")


def network_of(path: Path) -> Network:
    """The one network of a bundle."""
    bundle = open_bundle(path)
    (name,) = (name for name in bundle.entries if name.startswith("networks/"))
    return from_bytes(bundle.member(name))
