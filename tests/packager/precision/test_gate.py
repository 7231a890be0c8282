# SPDX-License-Identifier: Apache-2.0
"""How far a build may be from its model: figures, budgets, noise, a metric of one's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.packager.precision.models import loud, lowered, request
from trtpack.accuracy.blame import Judged, guilty, in_float32, mend
from trtpack.accuracy.budgets import (
    bounds,
    budgets_of,
    digits,
    excess,
    furthest,
    missed,
    reached,
    told,
    worst,
)
from trtpack.accuracy.figures import Figures, figures_of
from trtpack.accuracy.metric import Held, Metric, drop_text, load_metric
from trtpack.accuracy.noise import MARGIN, Noise, tolerance
from trtpack.errors import AccuracyError, ConfigError, SourceError
from trtpack.options import Budget, Drop, FigureName, Options
from trtpack.precision.running import named_inputs, run_graph

T = torch.Tensor


def figures(output: str = "y", **values: Any) -> Figures:
    return Figures(**{"output": output, "cosine": 1.0, "rel_l2": 0.0, "max_abs": 0.0} | values)


def test_figures_are_those_of_the_worst_sample() -> None:
    wanted = [(torch.eye(4), torch.ones(3)), (torch.eye(4) * 2, torch.ones(3))]
    swapped = torch.eye(4)[[0, 1, 3, 2]]
    got = [(torch.eye(4), torch.ones(3)), (swapped * 2, torch.tensor([1.0, 1, 4]))]
    first, second = figures_of(["logits", "other"], got, wanted)
    assert first.top1 == 6 / 8
    assert (first.cosine, first.rel_l2, first.max_abs) == (0.5, 1.0, 2.0)
    assert (second.top1, second.max_abs) == (None, 3.0)


def test_every_output_is_held_to_its_own_budget() -> None:
    budgets = (Budget("cosine", 0.99), Budget("rel_l2", 0.5), Budget("cosine", 0.9, "b"))
    assert [b.bound for b in bounds(budgets, "a")] == [0.99, 0.5]
    assert [b.bound for b in bounds(budgets, "b")] == [0.9, 0.5]
    assert bounds(budgets[::-1], "b") == [Budget("cosine", 0.9, "b"), Budget("rel_l2", 0.5)]
    found = list(missed(budgets, [figures("a", cosine=0.95), figures("b", cosine=0.95)]))
    assert [one.output for one, _ in found] == ["a"]
    assert told(*found[0]) == "cosine 0.95 of a, at least 0.99 is wanted"
    assert not list(missed([Budget("top1", 0.9)], [figures()]))
    assert list(missed([Budget("rel_l2", 0.9)], [figures(rel_l2=math.nan)]))


@pytest.mark.parametrize(
    ("figure", "bound", "value", "beyond"),
    [
        ("cosine", 0.99, 0.99, 0.0),
        ("cosine", 0.99, 0.97, 2.0),
        ("top1", 0.5, 0.25, 0.5),
        ("max_abs", 0.5, 2.0, 3.0),
        ("max_abs", 0.5, math.inf, math.inf),
        ("rel_l2", 0.5, math.nan, math.inf),
        ("top1", 0.5, None, 0.0),
    ],
)
def test_a_miss_is_a_share_of_what_is_allowed(
    figure: FigureName, bound: float, value: float | None, beyond: float
) -> None:
    found = excess(figures(**{figure: value}), Budget(figure, bound))
    assert found == pytest.approx(beyond)


def test_a_bound_of_no_error_at_all_still_ranks() -> None:
    near, far = figures(max_abs=1e-9), figures(max_abs=1e-3)
    assert 0 < excess(near, Budget("max_abs", 0.0)) < excess(far, Budget("max_abs", 0.0))
    almost = math.nextafter(0.5, 1)
    assert excess(figures(rel_l2=almost), Budget("rel_l2", 0.5)) > 0


def test_the_worst_of_every_figure_that_is_asked_for() -> None:
    budgets = (Budget("cosine", 0.9), Budget("max_abs", 1.0, "b"))
    found = [figures("a", cosine=0.8, max_abs=9.0), figures("b", cosine=0.95, max_abs=4.0)]
    assert worst(budgets, found) == {"cosine": 0.8, "max_abs": 4.0}
    miss = furthest(budgets, found)
    assert miss is not None
    assert reached(*miss) == "max_abs of b is 4"
    assert furthest(budgets, [figures("a")]) is None


def test_a_miss_shows_in_its_digits() -> None:
    near = figures(cosine=1 - 3e-13)
    assert told(near, Budget("cosine", 1.0)) == "cosine 0.9999999999997 of y, at least 1 is wanted"
    assert reached(near, Budget("cosine", 0.5)) == "cosine of y is 0.9999999999997"
    assert told(figures(cosine=0.99), Budget("cosine", 0.99999999999)).endswith(
        "at least 0.99999999999 is wanted"
    )
    assert digits(0.1 + 0.2, lambda value: value > 0.3) == "0.30000000000000004"


def test_without_a_budget_the_precision_has_one() -> None:
    assert budgets_of(Options(targets=(), precision="mixed"), ["y"]) == (Budget("cosine", 0.999),)
    assert budgets_of(Options(targets=(), precision="fp32"), ["y"]) == ()
    assert budgets_of(Options(targets=()), ["y"]) == ()
    with pytest.raises(ConfigError, match="an output that the model does not have") as caught:
        budgets_of(Options(targets=(), budgets=(Budget("top1", 1, "z"),)), ["x", "y"])
    assert caught.value.hint == "its outputs are x, y"


def test_tolerances_come_from_noise_and_say_how() -> None:
    plain = tolerance("y", "FLOAT", "FLOAT")
    assert plain == {"rel_l2": 1e-3, "cosine": 0.9999, "found": {"by": "type", "type": "FLOAT"}}
    repeated = Noise(1, {"repeat": (figures(),)})
    assert tolerance("y", "FLOAT", "FLOAT", repeated) == plain
    noise = Noise(2, {"repeat": (figures(),), "precision": (figures(rel_l2=0.01, cosine=0.9995),)})
    found = tolerance("y", "FLOAT", "FLOAT", noise)
    assert found["rel_l2"] == pytest.approx(MARGIN * 0.01)
    assert found["cosine"] == pytest.approx(1 - MARGIN**2 * 0.0005)
    assert found["found"]["by"] == "noise"
    assert found["found"]["rel_l2"] == {"repeat": 0.0, "precision": 0.01}
    low = Noise(1, {"precision": (figures(rel_l2=1e-6),)})
    assert tolerance("y", "HALF", "FLOAT", low)["rel_l2"] == 5e-2  # never below the type's own
    assert tolerance("y", "INT64", "FLOAT", repeated) == {"equal": True}
    assert tolerance("y", "INT64", "FLOAT", noise) == found
    with pytest.raises(AccuracyError, match="leaves nothing to judge a device by"):
        tolerance("y", "FLOAT", "FLOAT", Noise(1, {"precision": (figures(rel_l2=math.inf),)}))


def test_the_operators_to_pin_are_found() -> None:
    model = loud()
    made = lowered(model, "fp16")
    asked = request(made.captured, model[1], "fp16")
    sample = named_inputs(made.captured, model[1])
    first = guilty(made, sample)[0]
    assert (first.node, first.added) == ("mul_1", math.inf)
    wanted = model[0](*model[1])

    def judge(graph: Any) -> Judged:
        (got,) = run_graph(graph, sample)
        (found,) = figures_of(["y"], [(got,)], [(wanted,)])
        return Judged(excess(found, Budget("cosine", 0.9999)), "told")

    found = mend(made, asked, sample, judge)
    assert found is not None
    assert found.is_enough
    assert {"mul_1", "add"} <= {one.node for one in found.guilty}
    assert str(found.guilty[0].pin) == "mul_1=fp32"
    assert found.guilty[0].where.startswith("models.py:")
    wide = in_float32(made, asked)
    assert wide is not None
    assert not judge(wide).excess


METRICS = """
import torch
def same(model): return torch.ones(3).sum() / 4
def model_of(model): return model(torch.ones(2)).sum()
def wrong(model): return model.no_such
def text(model): return "good"
def nothing(model): return float("nan")
"""


@pytest.fixture
def metrics(tmp_path: Path) -> str:
    (tmp_path / "my_metrics.py").write_text(METRICS)
    return str(tmp_path / "my_metrics.py")


def test_a_metric_of_ones_own(metrics: str) -> None:
    metric = load_metric(f"{metrics}:model_of", lambda x: x * 2)
    assert metric.of_model == 4.0
    value = metric.of(lambda x: x * 1.9)
    assert value == pytest.approx(3.8)
    assert drop_text(metric, value, Drop(0.1, True), []) is None
    assert "drops from 4 to 3.8, at most 1% is allowed" in str(
        drop_text(metric, value, Drop(0.01, True), [])
    )
    assert drop_text(metric, value, Drop(0.1, False), []) is not None
    assert drop_text(metric, 5.0, Drop(0.0, True), []) is None
    assert "at least 3.9 is wanted" in str(drop_text(metric, value, None, [Budget("metric", 3.9)]))


def test_what_a_metric_misses() -> None:
    metric = Metric("m.py:f", float, 0.9)
    held = Held(metric, Drop(0.1, False), (Budget("metric", 0.7),))
    assert (held.excess(0.8), held.is_beyond) == (0.0, False)
    assert held.excess(0.6) == pytest.approx(2.0)  # 0.3 where 0.1 is allowed
    beyond = Held(metric, None, (Budget("metric", 2.0),))
    assert beyond.is_beyond
    assert beyond.excess(0.9) == pytest.approx(0.55)
    assert beyond.broken(0.8) == (
        "m.py:f is 0.8, at least 2 is wanted, and the model itself has only 0.9"
    )
    near = Held(metric, None, (Budget("metric", 0.5),)).broken(0.49999999)
    assert near == "m.py:f is 0.49999999, at least 0.5 is wanted"


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("{}:wrong", SourceError, "raised AttributeError"),
        ("{}:text", SourceError, "could not convert string to float"),
        ("{}:nothing", ConfigError, "answers nan"),
        ("{}:absent", SourceError, "has no 'absent'"),
        ("no_such_file.py:f", SourceError, "there is no file no_such_file.py"),
        ("no_such_module:f", SourceError, "there is no Python module no_such_module"),
        ("metrics.py", ConfigError, "bad metric"),
    ],
)
def test_metrics_that_cannot_be_used(
    metrics: str, name: str, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        load_metric(name.format(metrics), lambda x: x)
