# SPDX-License-Identifier: Apache-2.0
"""Size expressions: canonical forms mean what Python's integers mean."""

from __future__ import annotations

import json
import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim, dim, maximum, minimum, product

NAMES = [("x", 0), ("x", 1), ("y", 0)]
OPERATIONS = {
    "+": (operator.add, operator.add),
    "-": (operator.sub, operator.sub),
    "*": (operator.mul, operator.mul),
    "min": (minimum, min),
    "max": (maximum, max),
    "//": (dims.floordiv, operator.floordiv),
    "%": (dims.mod, operator.mod),
}

trees = st.recursive(
    st.one_of(st.integers(-6, 6), st.sampled_from(NAMES)),
    lambda inner: st.tuples(st.sampled_from(list(OPERATIONS)), inner, inner),
    max_leaves=8,
)
sizes = st.fixed_dictionaries({name: st.integers(1, 9) for name in NAMES})


def built(tree: Any) -> Dim:
    """The expression of a tree."""
    if isinstance(tree, int):
        return tree
    if len(tree) == 2:
        return dim(*tree)
    return OPERATIONS[tree[0]][0](built(tree[1]), built(tree[2]))


def computed(tree: Any, at: dict[tuple[str, int], int]) -> int:
    """What Python makes of the tree."""
    if isinstance(tree, int):
        return tree
    if len(tree) == 2:
        return at[tree]
    return OPERATIONS[tree[0]][1](computed(tree[1], at), computed(tree[2], at))


def evaluated(value: Dim, at: dict[tuple[str, int], int]) -> int:
    """What the expression evaluates to."""
    return dims.evaluate(value, lambda tensor, axis: at[tensor, axis])


def same(tree: Any, at: dict[tuple[str, int], int]) -> tuple[Dim, int] | None:
    """Both readings of a tree; None where Python itself divides by zero."""
    try:
        return built(tree), computed(tree, at)
    except ZeroDivisionError:
        return None


@given(trees, sizes)
def test_an_expression_evaluates_like_python(tree: Any, at: dict[tuple[str, int], int]) -> None:
    if both := same(tree, at):
        assert evaluated(both[0], at) == both[1]


@given(trees, sizes)
def test_json_gives_the_same_expression_back(tree: Any, at: dict[tuple[str, int], int]) -> None:
    if both := same(tree, at):
        text = json.dumps(dims.to_json(both[0]))
        assert dims.from_json(json.loads(text)) == both[0]


@given(trees, sizes)
def test_substituting_numbers_is_evaluating(tree: Any, at: dict[tuple[str, int], int]) -> None:
    if both := same(tree, at):
        assert dims.substitute(both[0], lambda tensor, axis: at[tensor, axis]) == both[1]


@given(trees, sizes)
def test_substituting_dims_by_themselves_changes_nothing(
    tree: Any, at: dict[tuple[str, int], int]
) -> None:
    if both := same(tree, at):
        assert dims.substitute(both[0], dim) == both[0]


@given(trees, trees, sizes)
def test_a_sum_does_not_depend_on_the_order(
    one: Any, other: Any, at: dict[tuple[str, int], int]
) -> None:
    if same(one, at) and same(other, at):
        a, b = built(one), built(other)
        assert a + b == b + a
        assert a * b == b * a
        assert minimum(a, b) == minimum(b, a)
        assert a - a == 0


n, m = dim("x", 0), dim("x", 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((n * 2 + n) // 3, n),
        ((n * m) // n, m),
        (n * (m + 1) - n * m, n),
        ((n * 4) % 2, 0),
        (n % n, 0),
        (minimum(n, n + 1), n),
        (maximum(n, n + 1), n + 1),
        ((n * 6 + 3) // 3, n * 2 + 1),
        ((n * 2 + 1) // 2, n),
        ((n + 7) // 8, (n + 7) // 8),
        (product((n, 3, m)), m * n * 3),
        (0 * n, 0),
        (5 // n, 5 // n),
    ],
)
def test_equal_sizes_have_one_form(value: Dim, expected: Dim) -> None:
    assert value == expected
    assert hash(value) == hash(expected)


def test_different_sizes_have_different_forms() -> None:
    forms = [n, m, n + 1, n * 2, n // 2, n % 2, minimum(n, m), maximum(n, m), dim("y", 0)]
    assert len(set(forms)) == len(forms)


def test_an_expression_reads_well() -> None:
    assert str(n * 2 + 1) == "1 + 2*x.0"
    assert str(n // 2) == "((x.0) // (2))"


def test_the_dims_of_an_expression_are_told() -> None:
    assert set(dims.atoms(n // 2 + m)) == {("x", 0), ("x", 1)}
    assert list(dims.atoms(7)) == []


@pytest.mark.parametrize(
    "value",
    [
        True,
        1.5,
        "x",
        None,
        {"dim": ["x"]},
        {"dim": ["x", "0"]},
        {"op": "^", "args": [1, 2]},
        {"op": "+", "args": [1]},
        {"op": "+", "args": [1, "x"]},
        {"op": "//", "args": [1, 0]},
        {"dim": ["x", True]},
        {"dim": ["x", -1]},
    ],
)
def test_malformed_json_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not a size expression"):
        dims.from_json(value)
