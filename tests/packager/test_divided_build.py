# SPDX-License-Identifier: Apache-2.0
"""A model for the CPU, divided: compiled segments with PyTorch between them, in one bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import trtpack_runtime
from trtpack.options import Options
from trtpack.pipeline import build

pytestmark = pytest.mark.slow


class Chain(nn.Module):
    """Worth compiling on both sides of what is not compiled."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sin().exp().tanh().relu().sin().exp().tanh()


def test_what_is_kept_in_pytorch_runs_between_compiled_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    x = torch.linspace(-2, 2, 256 * 256).reshape(256, 256)
    output = tmp_path / "bundle.tar"
    options = Options(("cpu",), output=output, engine="inductor", torch_ops=("aten.relu",))
    report = build((Chain(), (x,)), options)
    (target,) = report.targets
    assert [(s.compiled, s.count) for s in target.segments] == [(True, 3), (False, 1), (True, 3)]
    assert [(e.segment, e.kind) for e in target.engines] == [
        ("forward_0", "inductor"),
        ("forward_2", "inductor"),
    ]
    assert "2 compiled segments and 1 eager segment" in report.to_text()
    loaded = trtpack_runtime.load(output)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), Chain()(x))
