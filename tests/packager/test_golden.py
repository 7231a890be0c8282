# SPDX-License-Identifier: Apache-2.0
"""How often the original model is called, and what of it is noise."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from trtpack import pipeline
from trtpack.golden import run_again, try_out
from trtpack.inputs import parse_inputs
from trtpack.options import Options
from trtpack.sources import Call, Source, load_source
from trtpack_runtime.bundle import open_bundle


class Summing(nn.Module):
    """Keeps a running sum in a buffer; counts its calls, and answers differently with ``drift``."""

    def __init__(self, drift: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4))
        self.calls, self.drift = 0, drift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.total.add_(x.sum(0))
        return x + self.total + self.drift * self.calls


@pytest.mark.parametrize(
    "given",
    [{"model": (Summing(), (torch.randn(2, 4),))}, {"model": Summing(), "inputs": ["2x4"]}],
    ids=["tensors", "specs"],
)
def test_the_first_call_counts_where_it_was_that_of_the_sample(given: dict[str, Any]) -> None:
    source = _source(**given)
    tried = try_out(source)
    calls = source.module.calls
    assert run_again(source, {}, tried) is tried
    assert source.module.calls == calls
    again = run_again(source, {"total": torch.ones(4)}, tried)
    assert source.module.calls == calls + 1
    torch.testing.assert_close(again[0], tried[0] + 1)
    assert not source.module.get_buffer("total").any()


def test_a_sample_of_another_size_or_type_is_run_again() -> None:
    source = _source(Summing(), ["1/1/8x4"])  # traced with two rows
    tried = try_out(source)
    assert tried[0].shape == (2, 4)
    assert run_again(source, {}, tried)[0].shape == (1, 4)
    wide = dataclasses.replace(source, args=(next(source.samples(1))[0][0].double(),))
    assert run_again(wide, {}, try_out(wide))[0].dtype == torch.float32


def test_a_build_calls_the_model_once_to_try_it_and_once_for_each_sample(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls: list[Call] = []
    run = Source.run

    def counted(self: Source, call: Call) -> Any:
        calls.append(call)
        return run(self, call)

    monkeypatch.setattr(Source, "run", counted)
    options = Options(targets=("orin",), output=tmp_path / "b.tar", samples=2)
    pipeline.build((nn.Linear(4, 4), (torch.randn(2, 4),)), options)
    assert len(calls) == 3


def test_what_a_model_answers_only_now_and_then_is_noise(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = Summing(drift=1e-2)
    options = Options(targets=("orin",), output=tmp_path / "b.tar", samples=1, cache=False)
    pipeline.build((model, (torch.randn(2, 4),)), options)
    bound = open_bundle(tmp_path / "b.tar").manifest.methods["forward"].tolerance["output"]
    assert "repeat" in bound["found"]["rel_l2"]


def _source(model: Any, inputs: list[str] | None = None) -> Source:
    return load_source(model, inputs=parse_inputs(inputs or []))
