# SPDX-License-Identifier: Apache-2.0
"""The zoo's results are judged as they should be, and the page is that of the stored ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.zoo import MODELS, table, verdict
from tests.zoo.batches import at_batch, batch_sizes

PAGE = Path(__file__).parents[2] / "docs/reference/zoo.md"


def whole(**changed: Any) -> dict[str, Any]:
    seconds = {"export": 2.0, "decompose": 1.0, "lower": 0.5, "convert": 0.5, "build": 1.0}
    found: dict[str, Any] = {
        "operators": 10,
        "layers": 8,
        "defined": 12,
        "tensorrt": 1,
        "torch": 0,
        "refused": [],
        "rel_l2": 1e-6,
        "cosine": 1.0,
        "differing": 0.0,
        "engine_mb": 1.0,
        "seconds": seconds,
    }
    return found | changed


def failing(results: dict[str, Any]) -> list[str]:
    return [bar.text for bar in verdict.bars(results) if not bar.holds]


def test_the_page_is_written_from_the_stored_results() -> None:
    results = json.loads(PAGE.with_suffix(".json").read_text())
    assert table.markdown(results) == PAGE.read_text(), "run scripts/zoo --write"
    assert {key.rpartition("/")[0] for key in results} == set(MODELS)


def test_a_whole_right_model_holds_every_demand() -> None:
    results = {f"resnet18/{mode}": whole() for mode in verdict.MODES}
    assert failing(results) == []
    assert verdict.layers_per_operator(results) == 0.8


@pytest.mark.parametrize(
    ("found", "mode", "demand"),
    [
        (whole(torch=1, tensorrt=2), "static", "one TensorRT segment"),
        (whole(torch=1, tensorrt=2), "dynamic", "one TensorRT segment"),
        (whole(rel_l2=2e-3), "static", "relative L2 error"),
        (whole(differing=0.1), "dynamic", "relative L2 error"),
        (whole(cosine=0.99), "float16", "cosine"),
        (whole(defined=74), "static", "resnet18: fewer than 74 layers"),
        (whole(seconds={"export": 1, "decompose": 1, "lower": 1, "convert": 1}), "static", "lower"),
    ],
)
def test_what_falls_short_is_told(found: dict[str, Any], mode: str, demand: str) -> None:
    (failed,) = failing({f"resnet18/{mode}": found})
    assert demand in failed


def test_an_engine_that_was_not_built_is_told() -> None:
    found = whole(error="build: it is out of memory")
    del found["engine_mb"]
    assert "static: converted and built" in failing({"a/static": found, "b/static": whole()})
    assert "out of memory" in table.markdown({"a/static": found})


def test_models_that_cannot_be_exported_are_named_and_not_judged() -> None:
    results = {"a/static": {"not_exportable": "a guard", "seconds": {}}, "b/static": whole()}
    assert failing(results) == []
    assert (
        "- a, static: eager PyTorch or torch.export cannot take it: `a guard`."
        in table.markdown(results)
    )


def test_batches_are_made_of_the_example() -> None:
    args = (torch.arange(6.0).reshape(2, 3), torch.zeros(3, 2, dtype=torch.int64))
    shapes = ({0: "batch"}, {1: "batch"})
    assert batch_sizes(args, shapes) == [1, 3]
    floats, integers = at_batch(args, shapes, 3)
    assert floats.shape == (3, 3)
    assert integers.shape == (3, 3)
    assert not torch.equal(floats[0], floats[2])


def test_a_model_that_float16_does_not_suit_is_held_to_eager_float16() -> None:
    halves = whole(cosine=0.95, own_cosine=0.97)
    assert verdict.wrong(halves, "float16") is None
    assert verdict.wrong(halves | {"cosine": 0.93}, "float16") == (
        "cosine 0.93000, at least 0.94000 is wanted"
    )
    assert "is wanted" in str(verdict.wrong(halves | {"own_cosine": 1.0}, "float16"))
    page = table.markdown({"a/float16": halves})
    assert "not made for float16: eager PyTorch's cosine with float32 is 0.97000" in page
