# SPDX-License-Identifier: Apache-2.0
"""Example inputs: shapes, dynamic dimensions, files of samples, code to copy."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor, nn

from trtpack.options import SizeRange
from trtpack.sources import Source

from .loading import load, refused, save


def test_specs_go_to_their_places(code: str) -> None:
    source = load(f"{code}:make_model", "scale=1:float32[2,3]", "x=2x3")
    assert (len(source.args), list(source.kwargs)) == (0, ["x", "scale"])
    assert 2 <= source.kwargs["scale"].item() < 3
    source = load(f"{code}:make_model", "2x3", "scale=4")
    assert (source.args[0].shape, source.kwargs["scale"].shape) == ((2, 3), (4,))


@pytest.mark.parametrize(
    ("inputs", "message", "hint"),
    [
        ([], "no example inputs for mymodel: forward takes (x, scale=None)", "--input"),
        (["xx=1x3"], "there is no input 'xx': forward takes (x, scale=None)", "did you mean x?"),
        (["scale=1"], "input x is missing", "--input x=SHAPE"),
        (["1x3", "x=1x3"], "input x is given twice, by position and by name", "drop x="),
        (["1x3", "1", "1"], "3 inputs without a name", "remove an --input"),
    ],
)
def test_says_what_is_wrong_with_inputs(
    code: str, inputs: list[str], message: str, hint: str
) -> None:
    error = refused(f"{code}:make_model", *inputs)
    assert message in error.message
    assert hint in error.hint


def sizes(source: Source, count: int) -> list[tuple[int, ...]]:
    return [tuple(args[0].shape) for args, _ in source.samples(count)]


def test_dynamic_dimensions_reach_export_and_samples(code: str) -> None:
    source = load(f"{code}:make_model", "1/4/8x3", "scale=1/4/8x4")
    assert source.ranges == {(0, 0): SizeRange(1, 4, 8), (1, 0): SizeRange(1, 4, 8)}
    exported = torch.export.export(
        source.module, source.args, source.kwargs, dynamic_shapes=source.dynamic_shapes
    )
    (limits,) = exported.range_constraints.values()
    assert (int(limits.lower), int(limits.upper)) == (1, 8)
    assert sizes(source, 4) == [(4, 3), (1, 3), (8, 3), (4, 3)]
    for call in source.samples(3):
        assert source.run(call).shape[1] == 4


def test_names_tell_dimensions_of_one_range_apart() -> None:
    class Outer(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a[:, None] * b

    apart = load(Outer(), "[n=2/3/9]", "[m=2/3/9]")
    exported = torch.export.export(apart.module, apart.args, dynamic_shapes=apart.dynamic_shapes)
    assert len(exported.range_constraints) == 2
    shared = load(Outer(), "2/3/9", "2/3/9")
    exported = torch.export.export(shared.module, shared.args, dynamic_shapes=shared.dynamic_shapes)
    assert len(exported.range_constraints) == 1


def test_a_size_of_one_is_not_traced_with(code: str) -> None:
    source = load(f"{code}:make_model", "1/1/8x3")
    assert source.args[0].shape == (2, 3)  # torch.export takes 1 for a constant
    assert sizes(source, 3) == [(1, 3), (1, 3), (8, 3)]


def test_variadic_inputs_can_be_dynamic() -> None:
    class Sum(nn.Module):
        def forward(self, first: Tensor, *rest: Tensor) -> Tensor:
            return first + sum(rest)

    source = load(Sum(), "1/4/8x3", "1/4/8x3", "1/4/8x3")
    exported = torch.export.export(source.module, source.args, dynamic_shapes=source.dynamic_shapes)
    assert len(exported.range_constraints) == 1


class Looked(nn.Module):
    """Looks numbers up in a table, and scales them."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 4)

    def forward(self, ids: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
        y = self.table(ids) * scale
        return y if shift is None else y + shift


def test_ranges_beside_an_example_leave_the_rest_to_it() -> None:
    example = (torch.tensor([[40, 45]]), torch.ones(1, dtype=torch.float64), torch.zeros(4))
    source = load((Looked(), example), "ids=1/2/4x2")
    assert source.ranges == {(0, 0): SizeRange(1, 2, 4)}
    assert {name: value.dtype for name, value in source.kwargs.items()} == {
        "ids": torch.int64,
        "scale": torch.float64,  # forward requires it, and does not require the third
    }
    for args, kwargs in source.samples(3):
        assert not args
        assert 40 <= int(kwargs["ids"].min()) <= int(kwargs["ids"].max()) <= 45
        assert kwargs["scale"].shape == (1,)
    source = load((Looked(), example), "2x2:int32[0,3]")
    assert source.args[0].dtype == torch.int32
    assert int(source.args[0].max()) < 3


def test_further_samples_are_like_the_given_one() -> None:
    inputs = {"ids": torch.tensor([[3, 7, 9]]), "mask": torch.ones(1, 3, dtype=torch.bool)}
    model = nn.Identity()
    first, second, third = load((model, (inputs,))).samples(3)
    assert torch.equal(first[0][0]["ids"], inputs["ids"])
    assert second[0][0]["ids"].shape == (1, 3)
    assert 3 <= int(second[0][0]["ids"].min()) <= int(second[0][0]["ids"].max()) <= 9
    assert bool(third[0][0]["mask"].all())
    assert not torch.equal(second[0][0]["ids"], third[0][0]["ids"])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files_hold_real_samples(code: str, tmp_path: Path, suffix: str) -> None:
    first, second = torch.full((2, 3), 1.0), torch.full((2, 3), 2.0)
    path = save(tmp_path / f"real{suffix}", **{"0__x": first, "1__x": second})
    source = load(f"{code}:make_model", str(path))
    samples = [kwargs["x"] for _, kwargs in source.samples(1)]
    assert [float(x[0, 0]) for x in samples] == [1, 2]
    assert torch.equal(source.kwargs["x"], first)


def test_one_tensor_needs_no_name(code: str, tmp_path: Path) -> None:
    path = tmp_path / "plain.npz"
    numpy.savez(path, numpy.ones((2, 3), numpy.float32))
    assert load(f"{code}:make_model", str(path)).kwargs["x"].shape == (2, 3)
    assert load(f"{code}:make_model", f"x={path}").kwargs["x"].shape == (2, 3)


def test_a_folder_holds_one_sample_a_file(code: str, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    for i in range(3):
        save(folder / f"{i}.npz", x=torch.full((1, 3), float(i)))
    source = load(f"{code}:make_model", f"@{folder}", "1/2/4x3")
    assert [float(args[0][0, 0]) for args, _ in source.samples(1)] == [0, 1, 2]
    assert source.ranges == {(0, 0): SizeRange(1, 2, 4)}
    assert source.args[0].shape == (2, 3)  # traced at the declared optimum


@pytest.mark.parametrize(
    ("tensors", "spec", "message"),
    [
        (
            {"x": torch.ones(9, 3)},
            "x=1/2/4x3",
            "sample 0 of input x has the shape 9x3, wanted 1/2/",
        ),
        ({"x": torch.ones(2, 3).int()}, "x=2x3", "has the type int32, wanted float32"),
        ({"x": torch.ones(2, 3), "y": torch.ones(1)}, "x=2x3", "the tensor 'y', which is no input"),
        ({"y": torch.ones(2, 3), "z": torch.ones(1)}, "x=2x3", "sample 0 has no input x"),
        ({"0__x": torch.ones(2, 3), "1__scale": torch.ones(1)}, "x=2x3", "sample 1 has the inputs"),
    ],
)
def test_says_what_is_wrong_with_samples(
    code: str, tmp_path: Path, tensors: dict[str, Tensor], spec: str, message: str
) -> None:
    path = save(tmp_path / "bad.npz", **tensors)
    assert message in refused(f"{code}:make_model", str(path), spec).message


def test_broken_and_missing_sample_files_are_named(code: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 no archive")
    assert str(broken) in refused(f"{code}:make_model", str(broken)).message
    assert "there is no sample file" in refused(f"{code}:make_model", "none.npz").message
    pickled = tmp_path / "pickled.npz"
    numpy.savez(pickled, x=numpy.array([{}], dtype=object))
    garbage = tmp_path / "garbage.npz"
    garbage.write_bytes(b"no numbers at all")
    for path in (pickled, garbage):
        told = refused(f"{code}:make_model", str(path)).message
        assert told == f"cannot read {path}: it is damaged, or holds other things than numbers"


@pytest.mark.parametrize(
    "inputs",
    [
        ["1/4/8x3"],
        ["2x3:float16", "scale=1:float32[2,4]"],
        ["x=1x3:int64[5,9]"],
        ["x=1x3:bool"],
        ["x=1x3:uint8"],
    ],
)
def test_example_code_makes_the_example_inputs(code: str, inputs: list[str]) -> None:
    source = load(f"{code}:make_model", *inputs)
    args, kwargs = eval(f"(lambda *a, **k: (a, k))({source.example_code()})", {"torch": torch})
    wanted_args, wanted_kwargs = next(source.samples(1))
    pairs = zip([*args, *kwargs.values()], [*wanted_args, *wanted_kwargs.values()], strict=True)
    for made, wanted in pairs:
        assert (made.shape, made.dtype) == (wanted.shape, wanted.dtype)
    assert kwargs.keys() == wanted_kwargs.keys()


def test_example_code_keeps_structure() -> None:
    inputs = ({"ids": torch.tensor([[4, 8]]), "more": [torch.zeros(2), (torch.ones(1),)]}, 3, None)
    source = load((nn.Identity(), inputs))
    assert source.example_code() == (
        "{'ids': torch.randint(4, 9, (1, 2)), 'more': [torch.randn(2), (torch.randn(1),)]}, 3, None"
    )
