# SPDX-License-Identifier: Apache-2.0
"""The search on doubles of builds and candidates whose times are known."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trtpack.errors import AccuracyError, CompileError
from trtpack.options import Options
from trtpack.report import BuildReport, EngineReport, TargetReport
from trtpack.trial_log import open_log
from trtpack.tuning import search as searching
from trtpack.tuning.comparing import Interval
from trtpack.tuning.measuring import HERE, Where
from trtpack.tuning.search import Built, Search
from trtpack.tuning.space import Setting
from trtpack.tuning.trials import Trial, pareto

SPACE = (
    Setting("freezing", False, (True,)),
    Setting("max_autotune", False, (True,)),
    Setting("threads", None, (1,)),
)
OPTIONS = Options(targets=("cpu",), tune=True, trials=8)
Times = Callable[[Mapping[str, Any]], float]


class Candidate:
    """Takes as long as the bundle's text says, and 5 % of noise."""

    device, is_alive = "cpu", True

    def __init__(self, bundle: Path, target: str, where: Where) -> None:
        assert where is HERE
        middle, memory = bundle.read_text().split()
        self._middle, self.memory_bytes = float(middle), int(memory)
        self._random = random.Random(bundle.name)
        self.ms, self.per_second = list[float](), list[float]()

    def turn(self) -> float:
        self.ms.append(self._middle * self._random.lognormvariate(0, 0.05))
        self.per_second.append(1e3 / self.ms[-1])
        return self.ms[-1]

    def close(self) -> None:
        pass

    def __enter__(self) -> Candidate:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture(autouse=True)
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "Candidate", Candidate)


def report(kind: str = "inductor") -> BuildReport:
    target = TargetReport("cpu", "", kind, "", (), engines=(EngineReport("forward_0", kind),))
    return BuildReport("m", 0, 0, (), (), {}, {}, (target,))


class Builds:
    """Writes a candidate's time and memory as its bundle; keeps what was built."""

    def __init__(self, folder: Path, times: Times, memory: Times = lambda settings: 100) -> None:
        self.folder, self.times, self.memory = folder, times, memory
        self.made: list[tuple[dict[str, Any], int]] = []

    def __call__(self, settings: Mapping[str, Any], rebuild: int) -> Built:
        self.made.append((dict(settings), rebuild))
        bundle = self.folder / f"{len(self.made)}-{rebuild}.tar"
        bundle.write_text(f"{self.times(settings)} {int(self.memory(settings))}")
        return Built(bundle, report(), f"{sorted(settings.items())}{rebuild}", 10, 0.1)


def tuned(builds: Builds, options: Options = OPTIONS, space: Any = SPACE) -> dict[str, Any]:
    with open_log(builds.folder / "trials.jsonl", {"model": "m"}) as log:
        made = Search(builds, space, options, "cpu", log, lambda text: None)
        told = made.run(builds({}, 0))
        assert made.shipped is not None
        assert made.shipped.bundle.exists()
        shipped = told["trials"][told["shipped"]]["settings"]
        assert made.shipped.bundle.read_text().startswith(f"{builds.times(shipped)} ")
        return told


def freezing_helps(settings: Mapping[str, Any]) -> float:
    """Freezing halves the time, one thread doubles it, max-autotune changes nothing."""
    return 10 * (0.5 if "freezing" in settings else 1) * (2 if "threads" in settings else 1)


def test_the_fastest_is_shipped_and_every_trial_told(tmp_path: Path) -> None:
    told = tuned(Builds(tmp_path, freezing_helps))
    assert told["flags"] == "--freezing"
    assert told["final"]["outcome"] == "faster"
    assert 0.45 < told["final"]["of_usual"]["middle"] < 0.55
    states = {str(t["settings"]): t["state"] for t in told["trials"]}
    assert len(told["trials"]) == len(states) == 8
    assert states["{}"] == "usual"
    assert states["{'freezing': True}"] == "best"
    assert states["{'threads': 1}"] == "slower"
    assert told["ended"] == "8 trials, as was asked"
    best = told["trials"][1]
    assert best["latency_of_usual"] == pytest.approx(0.5, rel=0.1)
    assert best["per_second_of_usual"] == pytest.approx(2, rel=0.1)


def test_where_nothing_is_faster_the_settings_stay(tmp_path: Path) -> None:
    told = tuned(Builds(tmp_path, lambda settings: 10 if settings == {} else 11))
    assert (told["shipped"], told["flags"], told["final"]) == (0, "", None)


def test_all_combinations_are_an_end(tmp_path: Path) -> None:
    told = tuned(Builds(tmp_path, freezing_helps), replace(OPTIONS, trials=None))
    assert told["ended"] == "every combination was tried"


def test_trials_that_win_nothing_are_an_end(tmp_path: Path) -> None:
    wide = (*SPACE, Setting("optimization_level", None, (1, 2, 3, 4, 5)))
    options = replace(OPTIONS, trials=None)
    told = tuned(Builds(tmp_path, lambda settings: 10), options, wide)
    assert told["ended"] == "the last 10 trials won nothing"


def test_what_misses_its_budget_is_told_and_not_shipped(tmp_path: Path) -> None:
    def times(settings: Mapping[str, Any]) -> float:
        if "freezing" in settings:
            raise AccuracyError("cpu misses its budget: cosine 0.5", hint="")
        return 10

    told = tuned(Builds(tmp_path, times))
    failed = [t for t in told["trials"] if t["state"] == "failed"]
    assert len(failed) == 4
    assert failed[0]["why"] == "cpu misses its budget: cosine 0.5"
    assert told["shipped"] == 0


def test_where_the_usual_one_dies_no_trial_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(Candidate):
        def turn(self) -> float:
            if len(self.ms) == 4:
                self.is_alive = False
                raise CompileError("the process that measures it died with signal 9", hint="")
            return super().turn()

    monkeypatch.setattr(searching, "Candidate", Dying)
    with pytest.raises(CompileError, match="signal 9"):
        tuned(Builds(tmp_path, freezing_helps))
    assert (tmp_path / "trials.jsonl").read_text().count("\n") == 2  # what it is of, the usual


def test_a_tuning_that_was_ended_goes_on(tmp_path: Path) -> None:
    first = Builds(tmp_path, freezing_helps)
    before = tuned(first, replace(OPTIONS, trials=3))
    again = Builds(tmp_path, freezing_helps)
    told = tuned(again)
    assert told["resumed"] == 3
    assert told["trials"][:3] == before["trials"]
    # the usual and the best are built again, out of the cache, to be measured against
    assert again.made[:2] == [({}, 0), ({"freezing": True}, 0)]
    assert len(again.made) == 2 + 5
    assert told["flags"] == "--freezing"


def test_the_best_are_told_by_throughput_too() -> None:
    share = Interval(1.0, 1.0, 1.0)
    usual = Trial(0, {}, "usual", memory_bytes=5, engine_bytes=5)
    one = replace(usual, number=1, state="alike", of_usual=share, latency_of_usual=1.0)
    more = replace(one, per_second_of_usual=1.5, memory_bytes=6)
    assert pareto([usual, more]) == (0, 1)
    assert pareto([usual, replace(more, per_second_of_usual=0.9)]) == (0,)
    assert pareto([usual, replace(more, memory_bytes=5)]) == (1,)


def test_memory_may_be_what_counts(tmp_path: Path) -> None:
    options = replace(OPTIONS, optimize="memory")

    def memory(settings: Mapping[str, Any]) -> float:
        return 50 if settings.get("threads") else 100

    told = tuned(Builds(tmp_path, freezing_helps, memory), options)
    assert told["flags"] == "--threads 1"
    least = {told["trials"][number]["memory_bytes"] for number in told["pareto"]}
    assert 50 in least


def test_engines_of_measured_tactics_are_built_again(tmp_path: Path) -> None:
    """TensorRT's second build of the best is faster by luck of its tactics, the third is not."""
    space = (Setting("optimization_level", None, (5,)),)

    class Lucky(Builds):
        def __call__(self, settings: Mapping[str, Any], rebuild: int) -> Built:
            built = super().__call__(settings, rebuild)
            if rebuild == 1:
                built.bundle.write_text("4 100")
            return replace(built, report=report("tensorrt"))

    builds = Lucky(tmp_path, lambda settings: 5 if settings else 10)
    with open_log(tmp_path / "trials.jsonl", {"model": "m"}) as log:
        made = Search(builds, space, OPTIONS, "cpu", log, lambda text: None)
        told = made.run(builds({}, 0))
    assert [(t["rebuild"], t["state"]) for t in told["trials"]] == [
        (0, "usual"),
        (0, "best"),
        (1, "best"),
        (2, "slower"),
    ]
    assert made.shipped is not None
    assert made.shipped.bundle.read_text() == "4 100"


class Clock:
    """Passes as builds and candidates take their time."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def test_a_budget_is_kept_by_what_is_built_again_too(tmp_path: Path) -> None:
    """A build takes 20 s: of two minutes, those for building the best twice again are kept."""
    clock = Clock()

    class Slow(Builds):
        def __call__(self, settings: Mapping[str, Any], rebuild: int) -> Built:
            clock.s += 20
            return replace(super().__call__(settings, rebuild), report=report("tensorrt"))

    builds = Slow(tmp_path, freezing_helps)
    options = replace(OPTIONS, trials=None, budget_minutes=2)
    usual = builds({}, 0)
    with open_log(tmp_path / "trials.jsonl", {"model": "m"}) as log:
        made = Search(builds, SPACE, options, "cpu", log, lambda text: None, spent_s=20, now=clock)
        told = made.run(replace(usual, seconds=20))
    assert [(t["flags"], t["rebuild"]) for t in told["trials"]] == [
        ("", 0),
        ("--freezing", 0),
        ("--max-autotune", 0),
        ("--threads 1", 0),
        ("--freezing", 1),
        ("--freezing", 2),
    ]
    assert told["ended"] == "2 minutes, as was asked"
    assert clock.s <= 120


def test_an_engine_that_is_there_already_is_not_measured_again(tmp_path: Path) -> None:
    class Same(Builds):
        def __call__(self, settings: Mapping[str, Any], rebuild: int) -> Built:
            return replace(super().__call__(settings, rebuild), content="one")

    told = tuned(Same(tmp_path, freezing_helps))
    assert {t["state"] for t in told["trials"][1:]} == {"same"}
    assert told["trials"][1]["why"] == "its engines are those of trial 0"
