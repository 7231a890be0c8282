# SPDX-License-Identifier: Apache-2.0
"""What a model is called with, from Python: ``Input``, tensors, and both; ``trace``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trtpack
from trtpack.api.arguments import called_with
from trtpack.errors import CaptureError, ConfigError, SourceError, TrtpackError
from trtpack.inputs import parse_input


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.fc = nn.Embedding(9, 4), nn.Linear(4, 4)

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.table(ids)) + x


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (trtpack.Input((1, 3, 8), dtype=torch.float16), "1x3x8:float16"),
        (trtpack.Input(((1, 4, 8), 3), name="x"), "x=1/4/8x3"),
        (
            trtpack.Input(
                min_shape=(1, 3), opt_shape=(4, 3), max_shape=(8, 3), dtype="int64", low=0, high=9
            ),
            "1/4/8x3:int64[0,9]",
        ),
    ],
)
def test_an_input_says_what_its_text_does(given: trtpack.InputSpec, text: str) -> None:
    assert given == parse_input(text)


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ({}, "one shape, or three"),
        ({"min_shape": (1,)}, "one shape, or three"),
        ({"shape": (1,), "opt_shape": (1,)}, "one shape, or three"),
        ({"min_shape": (1,), "opt_shape": (1, 2), "max_shape": (2,)}, "differ in length"),
        ({"min_shape": (4,), "opt_shape": (1,), "max_shape": (8,)}, r"a dimension is \(4, 1, 8\)"),
        ({"shape": (0, 3)}, "a dimension is 0"),
        ({"shape": (1,), "dtype": "float3"}, "unknown type 'float3'"),
        ({"shape": 3}, "a shape is 3, wanted sizes"),
        ({"shape": (1.5, 3)}, r"a dimension is 1\.5"),
        ({"shape": (1,), "low": 3, "high": 1}, "values are to lie from 3 to below 1"),
        ({"shape": (1,), "low": 3}, "values are to lie from 3 to below None"),
    ],
)
def test_shapes_that_cannot_be_are_refused(shapes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        trtpack.Input(**shapes)


def test_a_tensor_beside_an_input_is_drawn_like_it() -> None:
    model, x = Two(), trtpack.Input(((1, 2, 4), 4))
    called, specs = called_with(model, (torch.tensor([3, 7]), x), None, None)
    assert called is model
    assert [str(spec) for spec in specs] == ["2:int64[3,8]", "1/2/4x4"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (({"x": torch.ones(1)}, {"x": torch.ones(1)}, None), "input x is given twice"),
        (([{"x": trtpack.Input((1,))}], None, None), "stands inside a container"),
        (([trtpack.Input((1,))], None, {}), "beside inputs that vary"),
        ((None, None, {}), "without inputs"),
        (([trtpack.Input((1,)), 3], None, None), "an argument of type int"),
        (
            (
                [parse_input("[b=1/2/4]x3"), parse_input("[b=1/2/8]x3")],
                None,
                None,
            ),
            "dimension b has two ranges",
        ),
    ],
)
def test_arguments_that_say_two_things_are_refused(arguments: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        called_with(nn.Identity(), *arguments)


def test_a_traced_model_is_built_with_the_sizes_it_takes(tmp_path: Path) -> None:
    model = Two()
    ids = trtpack.Input(((2, 3, 5),), dtype="int64", high=9, low=0)
    program = trtpack.trace(model, (ids, trtpack.Input(((2, 3, 5), 4))))
    assert model.training
    path = tmp_path / "two.tar"
    built = trtpack.build(program, target="cpu", engine="reference", output=path)
    assert [value.shape_text for value in built.report.inputs] == ["2/3/5", "2/3/5x4"]
    loaded = built.load()
    for count in (2, 5):
        args = torch.arange(count), torch.randn(count, 4)
        with torch.no_grad():
            torch.testing.assert_close(loaded(*args), model(*args))


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # a value decides
            return x + 1
        return x - 1


class Raising(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(3, 3)  # of another width


@pytest.mark.parametrize(
    ("model", "kind", "line"),
    [(Branching(), CaptureError, "x.sum() > 0"), (Raising(), SourceError, "of another width")],
)
@pytest.mark.parametrize("take", ["trace", "compile"])
def test_a_model_that_cannot_be_exported_names_the_users_line(
    model: nn.Module, kind: type[TrtpackError], line: str, take: str
) -> None:
    settings = {"engine": "reference"} if take == "compile" else {}
    with pytest.raises(kind) as caught:
        getattr(trtpack, take)(model, torch.ones(2, 2), **settings)
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    number = next(i for i, text in enumerate(lines, 1) if line in text)
    assert f"{Path(__file__).name}:{number}" in caught.value.message
