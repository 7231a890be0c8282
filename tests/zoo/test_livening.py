# SPDX-License-Identifier: Apache-2.0
"""Every model of the zoo is alive once livened, so that comparing its numbers proves something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trtpack.livening import DeadModelError, check_alive, liven

from . import MODELS

TOLERANCES = dict.fromkeys(MODELS, 1e-4)
# the log-partition of a locally normalised model varies little whatever its weights are
TOLERANCES["pytorch_struct"] = 5e-5

QUICK = ("resnet18", "dlrm")
# silent when fresh: what a comparison of their outputs would have proved is nothing
DEAD_WHEN_FRESH = ("mixer_s32", "shufflenet_v2_x1_0", "timm_efficientdet", "yolov8n_like")


def livened(name: str) -> float:
    module, args, _ = MODELS[name]()
    liven(module, args)
    return check_alive(module, args, TOLERANCES[name])


@pytest.mark.parametrize("name", QUICK)
def test_some_are_alive_when_livened(name: str) -> None:
    assert livened(name) >= 100 * TOLERANCES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_all_are_alive_when_livened(name: str) -> None:
    assert livened(name) >= 100 * TOLERANCES[name]


@pytest.mark.parametrize("name", DEAD_WHEN_FRESH)
def test_fresh_weights_can_be_dead(name: str) -> None:
    module, args, _ = MODELS[name]()
    with pytest.raises(DeadModelError):
        check_alive(module, args, TOLERANCES[name])


def test_the_operator_table_lists_the_zoo() -> None:
    table = json.loads((Path(__file__).parent / "ops.json").read_text())
    assert set(table["models"]) == set(MODELS)
