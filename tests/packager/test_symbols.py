# SPDX-License-Identifier: Apache-2.0
"""torch's symbolic sizes become the same numbers as size expressions."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.export import Dim

from trtpack.capture import capture, returned
from trtpack.converters.scaled_sizes import whole_ratio
from trtpack.converters.symbols import Symbols, UnknownSymbolError
from trtpack_runtime import dims


class Resized(nn.Module):
    def __init__(self, shape: Callable[[int], int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(self.shape(x.shape[0]))


@pytest.mark.parametrize(
    "shape",
    [
        lambda n: n,
        lambda n: n * 2 + 1,
        lambda n: n // 4 + 2,
        lambda n: (n - 3) // 2 + 1,
        lambda n: n * n,
        lambda n: n % 3 + 2,
        lambda n: torch.sym_min(n, 40) + 2,
        lambda n: torch.sym_max(n, 5),
        lambda n: (n + 1) // 2 * 3 + n // 4 + 2,
        lambda n: math.floor(n / 3) + 1,
        lambda n: math.ceil(n / 4) * 4,
        lambda n: math.ceil(n * 0.3),
    ],
)
def test_expressions_follow_python(shape: Callable[[int], int]) -> None:
    batch = Dim("batch", min=6, max=64)
    graph = capture(
        Resized(shape), (torch.ones(8, 3),), dynamic_shapes={"x": {0: batch}}
    ).graph_module.graph
    (x,) = (n for n in graph.nodes if n.op == "placeholder")
    (made,) = returned(graph)
    symbols = Symbols([("x", x.meta["val"])])
    size = symbols.dim(made.meta["val"].shape[0])
    for n in (6, 7, 13, 64):
        sizes = {("x", 0): n, ("x", 1): 3}
        assert dims.evaluate(size, lambda t, a, s=sizes: s[t, a]) == int(shape(n))


def test_a_symbol_seen_only_in_an_expression_is_solved() -> None:
    half = Dim("half", min=2, max=8)
    graph = capture(
        nn.Identity(), (torch.ones(8, 3),), dynamic_shapes={"input": {0: 2 * half}}
    ).graph_module.graph
    (x,) = (n for n in graph.nodes if n.op == "placeholder")
    symbols = Symbols([("x", x.meta["val"])])
    size = symbols.dim(x.meta["val"].shape[0])
    assert dims.evaluate(size, lambda t, a: 12) == 12


def test_a_size_no_input_tells_is_an_error() -> None:
    graph = capture(
        nn.Identity(), (torch.ones(8, 3),), dynamic_shapes={"input": {0: Dim("n", min=2, max=9)}}
    ).graph_module.graph
    (x,) = (n for n in graph.nodes if n.op == "placeholder")
    with pytest.raises(UnknownSymbolError, match="is not a dimension of any input"):
        Symbols().dim(x.meta["val"].shape[0])


def test_a_scale_that_rounds_otherwise_than_its_fraction_is_unknown() -> None:
    assert whole_ratio(0.5) == Fraction(1, 2)
    assert whole_ratio(1.7) == Fraction(17, 10)
    assert int(100 * 0.29) == 28
    assert whole_ratio(0.29) is None
