# SPDX-License-Identifier: Apache-2.0
"""What is recorded of tensors between segments, and what is seen by it."""

from __future__ import annotations

import pytest
import torch

from trtpack_runtime.borders import SKETCH, border_of, bound_of, departure, places
from trtpack_runtime.checked_json import MalformedError, Place
from trtpack_runtime.manifest import Border, Method, TensorSpec, borders_json
from trtpack_runtime.manifest_methods import read_method

X = torch.linspace(-3, 5, 600).reshape(20, 30)


def test_the_figures_of_a_tensor() -> None:
    value = torch.tensor([[3.0, -4.0, float("nan")], [float("inf"), 0.0, 1.0]])
    assert border_of(value) == Border(
        (2, 3), 0.0, 2.54951, 4.0, 2, (3.0, -4.0, None, None, 0.0, 1.0)
    )
    empty = Border((0, 4), 0.0, 0.0, 0.0, 0, ())
    assert border_of(torch.empty(0, 4)) == empty
    assert border_of(torch.tensor([1 + 2j])).sketch == (1.0, 2.0)
    assert border_of(torch.tensor([True, False])).mean == 0.5


@pytest.mark.parametrize("count", [1, 64, 65, 128, 4096, 50257, 2654435761])
def test_the_places_are_within_and_apart(count: int) -> None:
    found = places(count)
    assert len(found) == min(count, SKETCH)
    assert all(0 <= place < count for place in found)
    assert len(set(found)) >= min(count, SKETCH) * 0.9 or count == 2654435761


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (X, None),
        (X * 1.0005, None),
        (X.half(), None),
        (X * 1.01, "elements differ"),
        (X.flip(0), "elements differ"),
        (X[:10], "its shape is"),
        (torch.where(X > 4, float("nan"), X), "elements are not finite, 0 should be"),
        (X + torch.zeros(20, 30).index_fill_(1, torch.tensor([1]), 0.3), "its mean differs|elem"),
    ],
)
def test_what_departs(value: torch.Tensor, told: str | None) -> None:
    why = departure(border_of(X), value, 1e-3)
    if told is None:
        assert why is None
    else:
        assert why is not None
        assert any(part in why for part in told.split("|"))


def test_nothing_is_no_size_to_differ_by() -> None:
    zeros = border_of(torch.zeros(8))
    assert departure(zeros, torch.zeros(8), 1e-3) is None
    assert departure(zeros, torch.full((8,), 1e-9), 1e-3) is not None


def _method(tolerance: dict[str, dict[str, float]], dtype: str = "HALF") -> Method:
    return Method((), (TensorSpec("y", dtype, (2,)),), "*", "*", tolerance=tolerance)


def test_the_loosest_output_bounds_the_inside() -> None:
    assert bound_of(_method({"y": {"rel_l2": 0.05}, "z": {"rel_l2": 0.01}})) == 0.05
    assert bound_of(_method({})) == 0.02
    assert bound_of(_method({"y": {"equal": True}}, "INT64")) == 1e-3


def test_they_are_read_as_written() -> None:
    value = {"inputs": [], "outputs": [], "in_tree": "*", "out_tree": "*"}
    borders = borders_json([{"v": border_of(X)}, {}])
    read = read_method(Place({**value, "borders": borders}))
    assert borders_json(read.borders) == borders
    borders[0]["v"]["std"] = "large"
    with pytest.raises(MalformedError, match=r"borders\[0\].v.std wants a number"):
        read_method(Place({**value, "borders": borders}))
