# SPDX-License-Identifier: Apache-2.0
"""The grammar of --input, and where its caret points."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtpack.errors import ConfigError
from trtpack.inputs import InputSyntaxError, parse_input, parse_inputs
from trtpack.options import DynamicDim, InputSpec, SampleFile, SizeRange

BATCH = DynamicDim(SizeRange(1, 4, 8))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1x3x224x224", InputSpec(None, (1, 3, 224, 224))),
        ("1x3x224x224:float16", InputSpec(None, (1, 3, 224, 224), "float16")),
        ("pixel_values=1x3", InputSpec("pixel_values", (1, 3))),
        ("ids=1x128:int64[0,30522]", InputSpec("ids", (1, 128), "int64", 0, 30522)),
        ("x=1x3:float32[-0.5,1e3]", InputSpec("x", (1, 3), "float32", -0.5, 1000)),
        ("x=1/4/8x3", InputSpec("x", (BATCH, 3))),
        ("x=[b=1/4/8]x3", InputSpec("x", (DynamicDim(SizeRange(1, 4, 8), "b"), 3))),
        ("x=4/4/4x3", InputSpec("x", (4, 3))),
        ("mask=1x5:bool", InputSpec("mask", (1, 5), "bool")),
        ("t=:int64[0,1000]", InputSpec("t", (), "int64", 0, 1000)),
        (":float32", InputSpec(None, (), "float32")),
        ("@samples", SampleFile(Path("samples"))),
        ("dir/a.npz", SampleFile(Path("dir/a.npz"))),
        ("x=a.safetensors", SampleFile(Path("a.safetensors"), "x")),
    ],
)
def test_reads(text: str, wanted: object) -> None:
    assert parse_input(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "1x3x224x224",
        "ids=1x128:int64[0,30522]",
        "x=[b=1/4/8]x3:float16[-0.5,0.5]",
        "n=:int64[0,12345678]",
        "x=@a.npz",
    ],
)
def test_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_input(text)) == text
    assert parse_input(str(parse_input(text))) == parse_input(text)


@pytest.mark.parametrize(
    ("text", "under", "problem"),
    [
        ("1x3x22a", "a", "unexpected 'a'"),
        ("1x3:flat16", "flat16", "unknown type 'flat16'"),
        ("x=1x0x3", "0x3", "a size must be at least 1"),
        ("x=1/2x3", "1/2", "a dynamic dimension needs three sizes, min/opt/max"),
        ("x=8/4/1", "8/4", "sizes must rise: min <= opt <= max"),
        ("x=[b=3]", "3]", "a named dimension needs min/opt/max"),
        ("x=[=1/2/3]", "=1", "expected the dimension's name, got '='"),
        ("1x3:int64[5,3]", "3]", "the range is empty, 3 is not above 5"),
        ("1x3:int64[0.5,3]", "0.5", "int64 needs whole numbers"),
        ("1x3:bool[0,1]", "[0", "bool has no range"),
        ("1 x 3", " x", "unexpected ' '"),
        ("photo.jpg", "photo", "expected a size, got 'p'"),
    ],
)
def test_points_at_the_mistake(text: str, under: str, problem: str) -> None:
    with pytest.raises(InputSyntaxError) as caught:
        parse_input(text)
    error = caught.value
    assert error.problem == problem
    head, shown, caret = error.message.split("\n")
    assert head == f"bad --input, {problem}"
    assert shown == f"  {text}"
    assert shown[caret.index("^") :].startswith(under)


@pytest.mark.parametrize("text", ["x=", "1x", "1x3:", "1x3:int64[0,3", "x=1/2/"])
def test_points_behind_what_is_cut_off(text: str) -> None:
    with pytest.raises(InputSyntaxError) as caught:
        parse_input(text)
    assert caught.value.position == len(text)


def test_suggests_the_nearest_type() -> None:
    with pytest.raises(InputSyntaxError) as caught:
        parse_input("1:flaot32")
    assert caught.value.hint.startswith("did you mean float32?")


def test_says_which_files_hold_samples() -> None:
    with pytest.raises(InputSyntaxError) as caught:
        parse_input("photo.jpg")
    assert ".npz" in caught.value.hint


def test_refuses_one_input_twice() -> None:
    with pytest.raises(ConfigError, match="input x is given twice"):
        parse_inputs(["x=1x3", "x=2x3"])


def test_refuses_two_ranges_of_one_dimension() -> None:
    with pytest.raises(ConfigError, match="dimension b has two ranges, 1/4/8 and 1/2/8"):
        parse_inputs(["x=[b=1/4/8]x3", "y=[b=1/2/8]"])
