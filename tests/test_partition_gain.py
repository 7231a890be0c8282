# SPDX-License-Identifier: Apache-2.0
"""What choosing by cost gains: how it is judged, its page, and a model of the zoo."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.partition_gain import page
from tests.partition_gain.trial import How, described, drawn, prepared, ratio, trial
from tests.partition_gain.waves import Waves
from trtpack.options import Options
from trtpack.planning import plan
from trtpack.target import find_target

PAGES = Path(__file__).parents[1] / "docs/benchmarks"


def found(low: float, gain: float, high: float, error: float = 0.0) -> dict[str, object]:
    return {
        "segments": {"by cost": "E3 p1", "maximal": "p4", "all PyTorch": "p4"},
        "ms": {"by cost": 1.0},
        "to maximal": [gain, low, high],
        "to all PyTorch": [2.0, 1.9, 2.1],
        "same": False,
        "error": error,
    }


def test_slower_is_what_is_slower_for_certain() -> None:
    results = {"sure": found(0.8, 0.9, 0.95), "perhaps": found(0.9, 0.98, 1.01)}
    (maximal, bare, right) = page.demands(results)
    assert maximal == ("never slower than maximal", "slower on 1 of 2: sure", False)
    assert bare[2]
    assert right[2]
    assert not page.demands({"wrong": found(1, 1, 1, error=0.1)})[2][2]


def test_a_ratio_has_the_interval_of_its_median() -> None:
    gain, low, high = ratio([2.0] * 50 + [3.0] * 50, [1.0] * 100)
    assert (gain, low, high) == (2.5, 2.0, 3.0)
    assert ratio([2.0, 2.0], [1.0, 1.0]) == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("kind", page.TIMED)
def test_the_page_is_of_its_figures(kind: str) -> None:
    written = PAGES / f"partition{kind}.md"
    text = written.read_text("utf-8")
    results = json.loads(written.with_suffix(".json").read_text("utf-8"))
    (machine,) = (line for line in text.splitlines() if line.startswith("- machine: "))
    assert page.markdown(results, machine.removeprefix("- machine: "), page.TIMED[kind]) == text


@pytest.mark.slow
def test_models_are_built_beside_each_other_and_timed_once_all_are(tmp_path: Path) -> None:
    names = ["lennard_jones", "no_such_model", "soft_actor_critic"]
    waves = Waves(How(seconds=0.2), tmp_path, jobs=2, size=3)
    results = dict(waves.run(names))
    assert sorted(results) == sorted(names)
    assert results["no_such_model"] == {"failed": "KeyError: 'no_such_model'"}
    for name in (names[0], names[2]):
        assert results[name]["error"] < page.MAX_ERROR
        assert "engine of forward_0" in (tmp_path / f"{name}.log").read_text()


@pytest.mark.slow
def test_what_takes_too_long_is_said_or_left_out(tmp_path: Path) -> None:
    names = ["lennard_jones", "soft_actor_critic"]
    late = Waves(How(), tmp_path, jobs=1, size=2, limit=0.1)
    assert [found for _, found in late.run(names)] == [{"failed": "not done after 0.1 s"}] * 2
    assert dict(Waves(How(), tmp_path, size=2, end=time.monotonic() + 0.1).run(names)) == {}


@pytest.mark.slow
def test_a_model_is_built_as_a_build_builds_it_timed_and_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    result = trial("lennard_jones", How(seconds=0.2))
    assert result["error"] < page.MAX_ERROR
    assert len(result["forced"]) == 3
    assert min(result["ms"].values()) > 0
    assert result["segments"] == {
        "by cost": "E4 p3 E13",
        "maximal": "p7 E13",
        "all PyTorch": "p20",
    }


def test_what_pytorch_runs_beside_tensorrt_is_no_engine() -> None:
    _, lowered = prepared("lennard_jones")
    failed = dict.fromkeys(drawn(lowered.captured, 0), "forced")
    made = plan(lowered, find_target("orin"), Options(("orin",)), failed=failed, min_block_size=1)
    assert described(made).split().count("p3") == 1
    assert described(made).startswith("E")
