# SPDX-License-Identifier: Apache-2.0
"""What a search of precisions found, timed beside the plain types where a target is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import trtpack
from tests.packager.calibration.models import residual
from trtpack import precision_measuring
from trtpack.accuracy.reading import parse_budget
from trtpack.options import Drop
from trtpack.report import BuildReport

LOADER = "import torch\nloader = [torch.randn(4, 3, 16, 16) for _ in range(2)]\n"


class Clock:
    """Takes the time of each precision from ``ms``; notes which were timed."""

    def __init__(self, ms: dict[str, float]) -> None:
        self.ms, self.timed = ms, list[str]()

    def __call__(self, calls: dict[str, Any], seconds: float) -> dict[str, list[float]]:
        self.timed = list(calls)
        for call in calls.values():
            assert call()[0].shape == (4, 10)
        return {name: [self.ms[name] / 1e3] for name in calls}


def built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, **options: Any
) -> BuildReport:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(precision_measuring, "in_turns", clock)
    (tmp_path / "data.py").write_text(LOADER)
    chosen = trtpack.Options(
        **{"targets": ("cpu",), "engine": "reference", "budgets": (parse_budget("cosine>=0.99"),)}
        | options,
        output=tmp_path / "a.tar",
        precision="auto",
        calibrate=f"{tmp_path / 'data.py'}:loader",
    )
    return trtpack.build(residual(), options=chosen).report


def search(report: BuildReport) -> dict[str, Any]:
    precision = report.to_json()["precision"]
    assert isinstance(precision, dict)
    found: dict[str, Any] = precision["search"]
    return found


@pytest.mark.parametrize(
    ("ms", "fastest"),
    [
        ({"int8": 1.0, "mixed": 0.99, "fp32": 2.0}, "int8"),
        ({"int8": 1.0, "mixed": 0.9, "fp32": 2.0}, "mixed"),
        ({"int8": 1.0, "mixed": 0.9, "fp32": 0.2}, "fp32"),
    ],
)
def test_the_fastest_is_built_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ms: dict[str, float], fastest: str
) -> None:
    report = built(tmp_path, monkeypatch, Clock(ms))
    found = search(report)
    assert found["precision"] == "int8"
    assert (found["timed"]["ms"], found["timed"]["fastest"]) == (ms, fastest)
    text = report.to_text()
    assert f"Precision {fastest}:" in text
    assert ("Quantized to INT8" in text) == (fastest == "int8")
    assert f"{fastest} is taken" in " ".join(text.split())


def test_what_misses_the_budget_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock({"int8": 3.0, "mixed": 1.0, "fp32": 2.0})
    monkeypatch.setattr(
        precision_measuring, "_keeps", lambda way, golden: way.options.precision == "fp32"
    )
    found = search(built(tmp_path, monkeypatch, clock))
    assert clock.timed == ["int8", "fp32"]
    assert found["timed"]["fastest"] == "fp32"


def test_what_the_users_metric_refuses_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes float16's small error for a bad one, and INT8's larger one for a good one."""
    (tmp_path / "metrics.py").write_text(
        "import torch\n"
        "x = torch.linspace(-1, 1, 4 * 3 * 256).reshape(4, 3, 16, 16)\n"
        "wanted = []\n"
        "def nearness(model):\n"
        "    got = model(x)\n"
        "    wanted.append(got) if not wanted else None\n"
        "    lost = float((got - wanted[0]).norm() / wanted[0].norm())\n"
        "    return 0.5 if 1e-5 < lost < 1.5e-3 else 1.0\n"
    )
    clock = Clock({"int8": 3.0, "mixed": 1.0, "fp32": 2.0})
    named, drop = f"{tmp_path / 'metrics.py'}:nearness", Drop(0.1, False)
    report = built(tmp_path, monkeypatch, clock, budgets=(), metric=named, max_drop=drop)
    assert clock.timed == ["int8", "fp32"]
    assert search(report)["timed"]["fastest"] == "fp32"


def test_a_budget_decides_what_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock({"fp32": 2.0, "mixed": 1.0})
    report = built(tmp_path, monkeypatch, clock, budgets=(parse_budget("max_abs<=1e-7"),))
    assert not clock.timed
    assert search(report)["precision"] == "fp32"
    assert "timed" not in search(report)


@pytest.mark.parametrize(
    "options",
    [
        {"targets": ("orin",), "engine": None},
        {"targets": ("rtx-4090",), "engine": None},  # TensorRT-RTX builds for it all the same
        {"defer": True},
    ],
)
def test_nothing_is_timed_where_no_target_is_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    clock = Clock({})
    assert "timed" not in search(built(tmp_path, monkeypatch, clock, **options))
    assert not clock.timed


def test_what_is_shipped_answers_as_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data.py").write_text(LOADER)
    model = residual()
    options = trtpack.Options(
        targets=("cpu",),
        engine="reference",
        output=tmp_path / "a.tar",
        precision="auto",
        calibrate=f"{tmp_path / 'data.py'}:loader",
    )
    bundle = trtpack.build(model, options=options)
    x = torch.randn(4, 3, 16, 16)
    got, wanted = bundle.load(trust=True)(x), model[0](x)
    assert torch.nn.functional.cosine_similarity(got.flatten(), wanted.flatten(), 0) > 0.999
    timed = search(bundle.report)["timed"]
    assert min(timed["ms"].values()) > 0
    assert timed["fastest"] in timed["ms"]
