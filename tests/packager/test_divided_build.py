# SPDX-License-Identifier: Apache-2.0
"""A model for the CPU, divided: compiled segments with PyTorch between them, in one bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import trtpack_runtime
from trtpack.capture import capture
from trtpack.lowering import lower
from trtpack.options import Options
from trtpack.partition import partition
from trtpack.pipeline import build
from trtpack.target import find_target
from trtpack_runtime.starting import DegradedWarning


class Chain(nn.Module):
    """Worth compiling on both sides of what is not compiled."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sin().exp().tanh().relu().sin().exp().tanh()


@pytest.mark.slow
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


class Levels(nn.Module):
    """What has as many values as the data tells is read once before an engine, and once after."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = torch.unique(x[0, 0, :4])
        y = self.features(x * levels.sum().sigmoid())
        return torch.bucketize(y.mean((2, 3)), levels)


@pytest.mark.parametrize("least", [None, 1])
def test_sizes_that_the_data_tells_pass_from_pytorch_to_pytorch_past_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int | None
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    x, model = torch.randn(1, 3, 24, 24), Levels().eval()
    output = tmp_path / "bundle.tar"
    options = Options(("orin",), output=output, min_block_size=least, trt_ops=("aten.convolution",))
    (target,) = build((model, (x,)), options).targets
    last = target.segments[-1]
    assert (last.kind, last.inputs[0].shape) == ("torch", ("?",))
    with pytest.warns(DegradedWarning):
        loaded = trtpack_runtime.load(output)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x))


@pytest.mark.parametrize("least", [None, 1])
def test_aotinductor_gets_no_segment_whose_input_is_sized_by_data(least: int | None) -> None:
    captured = lower(capture(Levels().eval(), (torch.randn(1, 3, 24, 24),))).captured
    made = partition(
        captured.graph_module,
        find_target("cpu", "inductor"),
        torch_ops=("aten._unique2",),
        trt_ops=("aten.convolution",),
        min_block_size=least,
        divided=True,
    )
    for segment in made.segments:
        sizes = [
            n.meta["val"].shape for n in segment.graph_module.graph.find_nodes(op="placeholder")
        ]
        told = all(isinstance(size, int) for shape in sizes for size in shape)
        assert told or not segment.compiled
    reasons = {r.op: r.reason for r in made.refusals}
    assert reasons["aten.sum.dim_IntList"] == "size u0 depends on data outside of its segment"
