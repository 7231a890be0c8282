# SPDX-License-Identifier: Apache-2.0
"""The cheapest precisions that keep a budget."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trtpack
from tests.packager.calibration.models import captured_of, residual, samples_of, uneven
from trtpack import precision_search
from trtpack.accuracy.metric import Held, Metric, Run
from trtpack.calibration.request import Quantization
from trtpack.errors import AccuracyError, ConfigError
from trtpack.options import Budget, Drop, Pin
from trtpack.precision.running import named_inputs
from trtpack.precision_search import Asked, Found, Trial, search, search_key
from trtpack.precision_times import Work, share
from trtpack.target import find_target
from trtpack.trial_log import open_log


def found(bound: float, tmp_path: Path, *, data: bool = True, pins: tuple[Pin, ...] = ()) -> Found:
    module, args = uneven()
    captured = captured_of(module, args)
    (name,) = (n for n in captured.inputs if n is not None)
    samples = [{name: torch.randn(16, 32)} for _ in range(3)]
    path = tmp_path / f"{bound}.json"
    asked = Quantization("INT8", "minmax", lambda: samples, path) if data else None
    plan = Asked((Budget("cosine", bound),), pins)
    return search(captured, samples, plan, [find_target("orin")], [asked] if asked else [])


def test_what_loses_most_goes_back_to_float16(tmp_path: Path) -> None:
    made = found(0.999, tmp_path)
    assert made.precision == "int8"
    assert [str(pin) for pin in made.pins] == ["wild=fp16"]
    assert max(made.lost, key=lambda place: made.lost[place]) == "wild"
    assert made.lost.keys() == {"calm", "wild", "head"}
    first, last = made.trials[0], made.trials[-1]
    assert first.kept == ()
    assert first.failures
    assert not last.failures
    assert first.time < last.time < 1


def test_a_loose_budget_takes_int8_everywhere(tmp_path: Path) -> None:
    made = found(0.5, tmp_path)
    assert (made.precision, made.pins, len(made.trials)) == ("int8", (), 1)


def test_the_users_pins_are_in_every_trial(tmp_path: Path) -> None:
    made = found(0.999, tmp_path, pins=(Pin("wild", "fp16"),))
    assert (made.precision, made.pins, len(made.trials)) == ("int8", (), 1)
    assert made.lost.keys() == {"calm", "head"}


def test_without_data_it_is_float16_or_float32(tmp_path: Path) -> None:
    assert found(0.999, tmp_path, data=False).precision == "mixed"
    made = found(1 - 1e-12, tmp_path, data=False)
    assert made.precision == "fp32"
    assert [trial.precision for trial in made.trials] == ["mixed", "fp32"]


def test_a_kind_that_rounds_nothing_is_passed_over() -> None:
    captured = captured_of(*uneven())
    (name,) = (n for n in captured.inputs if n is not None)
    samples = [{name: torch.randn(16, 32)}]
    asked = Quantization("INT4", samples=lambda: samples)
    plan = Asked((Budget("cosine", 0.9),))
    made = search(captured, samples, plan, [find_target("orin")], [asked])
    assert made.precision == "mixed", "no row of 32 columns fills a block of 128"


def test_the_users_metric_is_held_in_every_trial(tmp_path: Path) -> None:
    module, args = uneven()

    def nearness(model: Run) -> float:
        wanted = module(*args)
        return 1 - float((model(*args) - wanted).norm() / wanted.norm())

    held = Held(Metric("m.py:nearness", nearness, 1.0), Drop(0.02, False))
    captured = captured_of(module, args)
    samples = [named_inputs(captured, args)]
    asked = Quantization("INT8", "minmax", lambda: samples, tmp_path / "ranges.json")
    made = search(captured, samples, Asked((), metric=held), [find_target("orin")], [asked])
    assert [str(pin) for pin in made.pins] == ["wild=fp16"]
    assert made.trials[0].failures[0].startswith("m.py:nearness drops from 1 to 0.")
    assert not made.trials[-1].failures


def test_a_budget_that_nothing_keeps_names_the_best(tmp_path: Path) -> None:
    told = "the best found is fp32, where cosine 1 of .*, at least 1.1 is wanted"
    with pytest.raises(AccuracyError, match=told) as caught:
        found(1.1, tmp_path)
    assert caught.value.hint is not None
    assert "--precision fp32" in caught.value.hint


def test_the_best_is_the_one_that_misses_the_budgets_least() -> None:
    module, args = nn.Sequential(nn.Linear(32, 8)).eval(), (torch.randn(4, 32),)
    captured = captured_of(module, args)
    samples = [named_inputs(captured, args)]

    def refused(*budgets: Budget, metric: Held | None = None) -> AccuracyError:
        with pytest.raises(AccuracyError, match="no precision keeps the budget") as caught:
            search(captured, samples, Asked(budgets, metric=metric), [], [])
        return caught.value

    def narrowness(model: Run) -> float:
        return float((model(*args) != module(*args)).double().mean())

    error = refused(metric=Held(Metric("m.py:f", narrowness, 0.0), None, (Budget("metric", 2.0),)))
    assert "the best found is mixed, where m.py:f is" in str(error)
    assert str(error).endswith("at least 2 is wanted, and the model itself has only 0")
    assert error.hint == "choose another budget, one that the model itself keeps"
    error = refused(Budget("max_abs", 0.0), Budget("cosine", 1.5))
    assert "the best found is fp32, where cosine 1 of" in str(error)


def test_a_trial_tells_the_figures_of_its_budgets(tmp_path: Path) -> None:
    module, args = uneven()
    captured = captured_of(module, args)
    samples = [named_inputs(captured, args)]
    held = Held(Metric("m.py:f", lambda model: 0.5, 0.5), Drop(0.1, True))
    budgets = (Budget("max_abs", 1e-5), Budget("rel_l2", 0.5))
    made = search(captured, samples, Asked(budgets, metric=held), [], [])
    assert made.precision == "fp32"
    mixed, wide = made.trials
    assert mixed.figures.keys() == {"max_abs", "rel_l2", "metric"}
    assert mixed.figures["max_abs"] > 1e-5 > wide.figures["max_abs"]
    assert mixed.figures["metric"] == 0.5
    assert mixed.excess == pytest.approx(mixed.figures["max_abs"] / 1e-5 - 1)
    assert (wide.excess, wide.failures) == (0.0, ())


def test_a_trial_with_numbers_that_are_not_finite_is_read_as_written() -> None:
    trial = Trial("fp8", ("head",), {"max_abs": math.inf, "cosine": 0.0}, 0.5, math.inf, ("bad",))
    text = json.dumps(trial.to_json(), allow_nan=False)
    assert Trial.from_json(json.loads(text)) == trial
    assert str(trial) == "fp8 with 1 place in fp16"


def test_an_input_may_have_the_name_of_a_function() -> None:
    module, x = nn.Sequential(nn.Linear(32, 8)).eval(), torch.randn(4, 32)
    captured = captured_of(module, (x,))
    assert captured.inputs == ("input",)
    plan = Asked((Budget("cosine", 0.999),))
    assert search(captured, [{"input": x}], plan, [], []).precision == "mixed"


def test_the_same_again(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    assert found(0.999, tmp_path).to_json() == found(0.999, tmp_path / "again").to_json()


class Wide(nn.Module):
    """Its weights take longer to be read than to be multiplied with."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(256, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layer(x)
        return made


def wide(tmp_path: Path, *kinds: str) -> Found:
    torch.manual_seed(0)
    captured = captured_of(Wide().eval(), (torch.randn(1, 256),))
    (name,) = (n for n in captured.inputs if n is not None)
    samples = [{name: torch.randn(1, 256)} for _ in range(3)]
    asked = [
        Quantization(kind, "minmax", lambda: samples, tmp_path / f"{kind}.json") for kind in kinds
    ]
    targets, plan = [find_target("rtx-4090")], Asked((Budget("cosine", 0.98),))
    key = search_key(captured, samples, plan, targets, asked)
    with open_log(tmp_path / "log.jsonl", {"search": key}) as log:
        return search(captured, samples, plan, targets, asked, log=log)


def test_int4_weights_win_where_reading_them_is_what_takes_time(tmp_path: Path) -> None:
    made = wide(tmp_path, "INT8", "FP8", "INT4")
    assert made.precision == "int4"
    assert [(t.precision, round(t.time, 2)) for t in made.trials] == [("int8", 0.5), ("int4", 0.25)]


def test_fp8_is_tried_where_int8_does_not_keep_the_budget(tmp_path: Path) -> None:
    assert wide(tmp_path, "FP8").precision == "fp8"


def test_what_the_log_knows_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = wide(tmp_path, "INT8", "FP8", "INT4")
    log = tmp_path / "log.jsonl"
    whole = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(whole[:-1]) + whole[-1][:9])  # as one that was killed leaves it
    ran: list[str] = []
    monkeypatch.setattr(precision_search, "figures_of", noted(ran, precision_search.figures_of))
    again = wide(tmp_path, "INT8", "FP8", "INT4")
    assert again.trials == first.trials
    assert (first.resumed, again.resumed, len(ran)) == (0, len(whole) - 2, 1)


def noted(ran: list[str], call: Any) -> Any:
    def wrapper(*args: Any) -> Any:
        ran.append("figures")
        return call(*args)

    return wrapper


def test_a_build_tells_its_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module, args = residual()
    torch.save([dict(s)["x"] for s in samples_of(captured_of(module, args))], tmp_path / "x.pt")
    (tmp_path / "data.py").write_text(
        f"import torch\nloader = torch.load({str(tmp_path / 'x.pt')!r}, weights_only=True)\n"
    )
    options = trtpack.Options(
        targets=("orin",),
        output=tmp_path / "auto.tar",
        precision="auto",
        calibrate=f"{tmp_path / 'data.py'}:loader",
        budgets=(Budget("cosine", 0.99),),
    )
    report = trtpack.build((module, args), options=options).report
    assert "Searched 1 plan: int8 keeps the budget" in report.to_text()
    assert re.search(r"of their time in fp16, cosine 0\.99\d+, within the", report.to_text())
    assert report.precision["search"]["lost"].keys() >= {"second", "third", "head"}
    with pytest.raises(ConfigError, match="--observer is for --precision int8, fp8 and auto"):
        trtpack.build(
            (module, args), target="orin", options={"precision": "mixed", "observer": "mse"}
        )


def test_places_that_a_kind_leaves_take_their_time_in_float16() -> None:
    work = {"read": Work(weights=100.0), "left": Work(weights=100.0)}
    targets = [find_target("rtx-4090")]
    assert share(work, "int4", (), targets) == pytest.approx(0.25)
    assert share(work, "int4", ("left",), targets) == pytest.approx((0.25 + 1) / 2)
    multiplied = {"busy": Work(multiplied=1e9, weights=1.0)}
    assert share(multiplied, "int4", (), targets) == 1  # it multiplies in float16
    assert share(multiplied, "fp32", (), targets) == 2
