# SPDX-License-Identifier: Apache-2.0
"""Ways to divide a model that are timed: the fastest is taken, what was timed is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from trtpack import partition_measuring
from trtpack.building import assemble_all
from trtpack.capture import capture
from trtpack.engines import Bench
from trtpack.lowering import lower
from trtpack.options import Options
from trtpack.partition_measuring import measured
from trtpack.plan_timing import callable_plan, in_turns
from trtpack.planning import Planned, plan
from trtpack.report import Progress
from trtpack.tactic_book import TacticBook
from trtpack.target import find_target
from trtpack_runtime.device import facts
from trtpack_runtime.engine_store import EngineStore
from trtpack_runtime.safetensors import open_safetensors

X = torch.linspace(-1, 1, 64).reshape(8, 8)


class Chain(nn.Module):
    """Worth an engine at both ends of what is forced to PyTorch, but for small segments."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sin().exp().relu().sin().exp().tanh().sigmoid().cos().neg()


class Lab:
    """Plans of one model; every way to divide it takes the seconds that ``seconds`` says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.built = folder, 0
        self.seconds: dict[int, float] = {}
        self.options = Options(("cpu",), engine="inductor", torch_ops=("aten.relu",))
        self.lowered = lower(capture(Chain().eval(), (X,)))
        self.planned = plan(self.lowered, find_target("cpu", "inductor"), self.options)
        monkeypatch.setattr(partition_measuring, "built_plan", self.build)
        monkeypatch.setattr(partition_measuring, "in_turns", self.time)

    def build(self, one: Planned, *others: Any) -> int:
        self.built += 1
        return sum(segment.compiled for segment in one.plan.segments)

    def time(self, calls: dict[str, int], seconds: float) -> dict[str, list[float]]:
        return {key: [self.seconds[engines]] * 3 for key, engines in calls.items()}

    def measure(self, name: str, planned: Planned | None = None) -> Planned:
        folder = self.folder / name
        folder.mkdir()
        store, book = EngineStore(folder / "engines"), cast(TacticBook, None)
        bench = Bench("chain", self.options, facts(), folder, folder, store, book)
        return measured(planned or self.planned, [X], bench, Progress())


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Lab(tmp_path, monkeypatch)


@pytest.mark.parametrize("fastest", [0, 1, 2])
def test_the_fastest_way_is_taken_and_said(lab: Lab, fastest: int) -> None:
    lab.seconds = {0: 3e-3, 1: 3e-3, 2: 3e-3, fastest: 1e-3}
    made = lab.measure("first").plan
    assert sum(segment.compiled for segment in made.segments) == fastest
    assert made.prediction is not None
    assert made.prediction.us == pytest.approx(1000)
    assert made.prediction.measured == facts()["cpu"]["model"]
    if fastest == 0:
        assert any("measured to be slower" in refusal.reason for refusal in made.refusals)


def test_what_was_timed_is_kept_for_the_next_build(lab: Lab) -> None:
    lab.seconds = {0: 3e-3, 1: 1e-3, 2: 3e-3}
    first = lab.measure("first")
    assert lab.built == 3
    again = lab.measure("second")
    assert lab.built == 3
    assert again.plan.prediction == first.plan.prediction
    for kept in (lab.folder / "cache/trtpack/partitions").iterdir():
        kept.write_text("damaged")
    lab.measure("third")
    assert lab.built == 6


def test_the_prediction_stays_where_the_target_is_not_at_hand(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    options = Options(("orin",), torch_ops=("aten.relu",))
    orin = plan(lab.lowered, find_target("orin"), options)
    lab.options = options
    assert lab.measure("first", orin) is orin
    assert "predicted, not measured" in caplog.text
    assert lab.built == 0


def test_plans_are_called_in_turns_and_answer_what_the_model_does(lab: Lab) -> None:
    assembly = assemble_all([lab.lowered.captured], [lab.planned], lab.folder)
    stored = {n: v.tensor() for n, v in open_safetensors(assembly.stored.path).items()}
    program = assembly.programs[lab.planned.target.name]["forward"]
    cpu = torch.device("cpu")
    call = callable_plan(lab.lowered.captured, program, stored, {}, [X], cpu)
    (answer,) = call()
    torch.testing.assert_close(answer, Chain()(X))
    found = in_turns({"one": call, "other": call}, 0.01)
    assert len(found["one"]) == len(found["other"]) >= 5
