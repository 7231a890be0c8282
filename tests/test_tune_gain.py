# SPDX-License-Identifier: Apache-2.0
"""What tuning gains: how it is judged and told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.tune_gain import page
from tests.tune_gain.trial import nearest, trial

SHARE = {"low": 0.8, "middle": 0.85, "high": 0.9}


def found(shipped: int, final: dict[str, float] | None, **more: Any) -> dict[str, Any]:
    return {
        "usual_ms": 2.0,
        "flags": "--freezing" if shipped else "",
        "shipped": shipped,
        "final": None if final is None else {"of_usual": final},
        "states": ["usual", "best"],
        "built_s": 3.0,
        **more,
    }


def test_the_share_is_that_of_what_is_shipped_and_has_an_interval() -> None:
    slow = {"low": 0.97, "middle": 1.0, "high": 1.03}
    told = {
        "won": (found(1, SHARE), "0.850 (0.800 to 0.900), `--freezing`"),
        "not again": (
            found(0, slow),
            "1 (what had won took 1.000 (0.970 to 1.030)), the usual settings",
        ),
        "never": (
            found(0, None, nearest=slow),
            "1 (the nearest 1.000 (0.970 to 1.030)), the usual settings",
        ),
        "all alike": (found(0, None), "1 (nothing beat it), the usual settings"),
        "alone": (found(0, None, states=["usual"]), "(nothing else was tried), the usual settings"),
    }
    for result, text in told.values():
        assert page.line("m", result).endswith(text)


def test_a_model_that_got_slower_is_told() -> None:
    slower = {"low": 1.1, "middle": 1.2, "high": 1.3}
    results = {"a": found(1, SHARE), "b": found(1, slower), "c": {"failed": "no memory"}}
    results["d"] = found(0, None, states=["usual"])
    models, never, faster = page.demands(results)
    assert not models[2]
    assert never == ("what is shipped never slower than the usual", "1 slower: b", False)
    assert faster[1] == "2 of 2"


def test_the_nearest_is_the_fastest_of_those_that_were_measured() -> None:
    slow = {"low": 1.1, "middle": 1.2, "high": 1.3}
    trials = [{"of_usual": None}, {"of_usual": slow}, {"of_usual": SHARE}]
    assert nearest({"trials": trials}) == SHARE
    assert nearest({"trials": trials[:1]}) is None


@pytest.mark.slow
def test_a_model_is_tuned_in_the_time_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    told = trial("lennard_jones", tmp_path, "cpu", 3, 1, time.time())
    assert (told["trials"], told["shipped"], told["resumed"]) == (1, 0, 0)
    assert told["ended"].endswith("minutes, as was asked")
    assert json.loads(json.dumps(told)) == told
