# SPDX-License-Identifier: Apache-2.0
"""The soak sees wrong answers, errors that are none, and memory that grows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.acceptance.runtime.soaking import Sample, Tally, call_by_pool, call_directly
from trtpack_runtime.errors import InputMismatchError
from trtpack_runtime.pool import Pool

CPU = torch.device("cpu")
SAMPLES = [Sample((torch.full((n,), 1.5),), (torch.full((n,), 3.0),)) for n in (1, 4, 9)]


class Doubler:
    """Stands for a session that answers ``factor`` times its input, and refuses other inputs."""

    def __init__(self, factor: float = 2.0, *, refuses: bool = True) -> None:
        self.states: dict[str, Any] = {}
        self.factor, self.refuses = factor, refuses

    def twin(self) -> Doubler:
        return self

    def run(self, x: torch.Tensor, *, method: str | None = None) -> dict[str, torch.Tensor]:
        if self.refuses and x.dtype != torch.float32:
            raise InputMismatchError("wanted float32")
        return {"y": x * self.factor}

    def close(self) -> None:
        return


def soaked(model: Doubler) -> Tally:
    tally = Tally(400)
    with Pool(model, 2, 2) as pool:  # type: ignore[arg-type]  # stands for a session
        call_by_pool(pool, SAMPLES, [(torch.ones(2, dtype=torch.int32),)], tally, CPU, 4)
    return tally


def test_every_kind_of_caller_is_served() -> None:
    tally = soaked(Doubler())
    assert tally.problems == []
    assert tally.kinds.total() == tally.total
    assert {"compared", "not compared", "malformed", "cancelled"} <= set(tally.kinds)


@pytest.mark.parametrize(
    ("model", "problem"),
    [(Doubler(2.1), "relative L2 error"), (Doubler(refuses=False), "malformed inputs gave None")],
)
def test_what_is_wrong_is_told(model: Doubler, problem: str) -> None:
    assert any(problem in told for told in soaked(model).problems)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda x: x * 2, None),
        (lambda x: x * 2.1, "relative L2"),
        (lambda x: 1 / 0, "ZeroDivision"),
    ],
)
def test_direct_calls_are_compared_too(call: Callable[..., Any], problem: str | None) -> None:
    tally = Tally(400)
    call_directly(call, SAMPLES, tally, CPU, 4)
    assert [problem in told for told in tally.problems[:1] if problem] == [True] * bool(problem)
    assert bool(tally.problems) == bool(problem)
    if problem is None:
        assert tally.kinds == {"compared": 100, "not compared": 300}


def test_memory_is_looked_at_once_warm() -> None:
    tally = Tally(100)
    tally.readings = [(done, 900 + (0 if done < 20 else 100), 50) for done in range(0, 101, 5)]
    assert tally.change_percent(1) == tally.change_percent(2) == 0.0
    tally.readings = [(done, 1000 + done, 50) for done in range(0, 101, 5)]
    assert 4 < tally.change_percent(1) < 8
    tally.readings = [(100, 1000, 50)]
    assert math.isnan(tally.change_percent(1))
