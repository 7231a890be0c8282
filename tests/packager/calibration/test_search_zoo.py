# SPDX-License-Identifier: Apache-2.0
"""The search on two real architectures: what it finds keeps its budget on inputs it has not seen,
and is never slower than float16 everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import trtpack
from tests.zoo import MODELS
from trtpack.livening import liven
from trtpack.options import Budget


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bound"), [("resnet18", 0.9999), ("timm_vision_transformer", 0.9995)]
)
def test_the_plan_that_is_found(
    name: str, bound: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module, args, _ = MODELS[name]()
    module.eval().requires_grad_(False)
    liven(module, args, seed=0)
    torch.manual_seed(5)
    torch.save([torch.randn_like(args[0]) for _ in range(2)], tmp_path / "x.pt")
    (tmp_path / "data.py").write_text(
        f"import torch\nloader = torch.load({str(tmp_path / 'x.pt')!r}, weights_only=True)\n"
    )
    options = trtpack.Options(
        targets=("orin",),
        output=tmp_path / "auto.tar",
        precision="auto",
        calibrate=f"{tmp_path / 'data.py'}:loader",
        observer="minmax",
        budgets=(Budget("cosine", bound),),
    )
    report = trtpack.build((module, args), options=options).report
    search = report.precision["search"]
    print("\n" + report.to_text().split("Quantized")[0])
    chosen = next(trial for trial in reversed(search["trials"]) if not trial["misses"])
    assert chosen["time_of_fp16"] <= 1
    (accuracy,) = report.targets[0].accuracy[:1]
    assert accuracy.cosine is not None
    assert accuracy.cosine >= bound, "on the golden sample, which the search has not seen"
