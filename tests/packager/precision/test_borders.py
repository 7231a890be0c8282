# SPDX-License-Identifier: Apache-2.0
"""The fewest casts, held against trying every choice."""

from __future__ import annotations

import itertools
import random

import pytest

from trtpack.precision.borders import Value, fewest_casts


def cost(values: list[Value], wide: set[int], free: list[int]) -> float:
    """Casts, and an eighth for each free operator that computes wide."""
    casts = 0
    for value in values:
        sides = {reader in wide for reader in value.readers}
        casts += (value.maker not in wide) and True in sides
        casts += (value.maker in wide) and False in sides
    return casts + len(wide & set(free)) / 8


@pytest.mark.parametrize("seed", range(12))
def test_no_other_choice_needs_fewer(seed: int) -> None:
    draw = random.Random(seed)
    nodes = list(range(9))
    values = []
    for maker in nodes[:-1]:
        readers = [n for n in nodes if n > maker and draw.random() < 0.35]
        values.append(Value(maker, tuple(readers or [maker + 1])))
    fixed = {n: draw.random() < 0.5 for n in nodes if n in (0, 8) or draw.random() < 0.3}
    free = [n for n in nodes if n not in fixed]
    always = {n for n, is_wide in fixed.items() if is_wide}
    found = fewest_casts(values, fixed, free)
    best = min(
        cost(values, always | set(chosen), free)
        for count in range(len(free) + 1)
        for chosen in itertools.combinations(free, count)
    )
    assert cost(values, always | found, free) == best


def test_what_lies_between_wide_operators_is_wide() -> None:
    values = [Value("a", ("b",)), Value("b", ("c",)), Value("c", ("d",))]
    assert fewest_casts(values, {"a": True, "d": True}, ["b", "c"]) == {"b", "c"}
    assert fewest_casts(values, {"a": True, "d": False}, ["b", "c"]) == set()
