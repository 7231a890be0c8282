# SPDX-License-Identifier: Apache-2.0
"""Models of the zoo under ``torch.compile``, and the page that tells of all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.zoo import MODELS
from tests.zoo.compiled_page import OURS, beside_torch, holds, line, markdown, totals

PAGE = Path(__file__).parents[2] / "docs/reference/jit-zoo.md"


TIES = {f"deeplabv3_mobilenet/{way}" for way in OURS}
"""One pixel of 131,072: its two best classes are 1.3e-5 apart, about as far as float32's scores are
from float64's, eager's (1.6e-5) and ours (1.3e-5)."""


def found(**changed: Any) -> dict[str, Any]:
    right = {"rel_l2": 1e-6, "differing": 0.0, "graphs": 1, "breaks": 0, "seconds": 1.0}
    return {**right, "fallbacks": [], **changed}


def test_the_page_is_written_from_the_stored_results() -> None:
    results = json.loads(PAGE.with_suffix(".json").read_text())
    assert markdown(results) == PAGE.read_text(), "run scripts/jit_zoo --write"
    assert {key.rpartition("/")[0] for key in results} <= set(MODELS)
    assert holds({key: one for key, one in results.items() if key not in TIES})
    assert all(results[key]["differing"] < 1e-5 for key in TIES)


def test_what_is_wrong_or_falls_back_is_told() -> None:
    results = {
        "a/pytorch": found(breaks=2),
        "b/pytorch": found(rel_l2=0.1, differing=0.25),
        "c/pytorch": found(fallbacks=["no engine"]),
        "d/pytorch": {"error": "ValueError: no", "fallbacks": []},
    }
    assert totals(results)[0] == ("pytorch", 4, 2, 1, 1)
    assert not holds(results)
    assert [line(key, results[key]).split()[2] for key in results] == [
        "right",
        "WRONG",
        "right",
        "fails:",
    ]
    assert "- c, pytorch: `no engine`." in markdown(results)
    assert "- b, pytorch: `2.5e-01 of its whole numbers differ`." in markdown(results)


def test_ours_have_to_be_right_where_pytorchs_own_backend_is() -> None:
    wrong = found(differing=0.5)
    results = {"a/torch": found(), "b/torch": wrong, "a/pytorch": wrong, "b/pytorch": wrong}
    results |= {"a/dynamic": {"not_asked": "no batch"}, "c/pytorch": wrong}
    assert beside_torch(results)[0] == ("pytorch", 1, ["a"])
    assert beside_torch(results)[2] == ("dynamic", 0, [])
    assert "| pytorch | 1 | a |" in markdown(results)
    assert not holds(results)
    assert holds({"b/torch": wrong, "b/pytorch": found()})


@pytest.mark.slow
@pytest.mark.parametrize("way", [way for way in OURS if way != "inductor"])
@pytest.mark.parametrize("name", ["lennard_jones", "espcn_superres"])
def test_a_model_is_right_however_it_is_compiled(name: str, way: str) -> None:
    from tests.zoo.compiled import trial
    from tests.zoo.compiled_page import is_right

    tried = trial(name, way)
    assert "not_asked" in tried or is_right(tried), tried
    assert not tried.get("fallbacks")
