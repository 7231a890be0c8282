# SPDX-License-Identifier: Apache-2.0
"""Exported programs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from trtpack.options import SizeRange

from .loading import Trap, load, refused, save


class Add(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * self.weight + y


@pytest.fixture
def exported(tmp_path: Path) -> str:
    batch = Dim("batch", min=1, max=8)
    inputs = (torch.randn(4, 3), torch.randn(4, 3))
    shapes = ({0: batch}, {0: batch})
    path = tmp_path / "add.pt2"
    torch.export.save(torch.export.export(Add(), inputs, dynamic_shapes=shapes), path)
    return str(path)


def test_an_exported_program_keeps_its_dimensions(exported: str) -> None:
    source = load(exported)
    assert source.exported is not None
    assert source.name == "add"
    assert source.ranges[0, 0] == SizeRange(1, 4, 8)
    assert source.run(((torch.ones(5, 3), torch.ones(5, 3)), {})).shape == (5, 3)


def test_inputs_may_narrow_an_exported_program(exported: str) -> None:
    assert load(exported, "1/2/4x3", "1/2/4x3").ranges[0, 0] == SizeRange(1, 2, 4)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["1/4/16x3", "1/4/16x3"], "takes 1 to 8 in add.pt2, 1/4/16 was asked for"),
        (["4x1/3/8", "4x3"], "dimension 1 of input x is fixed in add.pt2"),
        (["4x5", "4x5"], "input x is 1/4/8x3 in add.pt2, 4x5 was asked for"),
        (["4x3"], "input y is missing"),
    ],
)
def test_inputs_have_to_fit_an_exported_program(
    exported: str, inputs: list[str], message: str
) -> None:
    assert message in refused(exported, *inputs).message


def test_an_exported_program_is_fixed(exported: str, tmp_path: Path) -> None:
    weights = save(tmp_path / "w.safetensors", weight=torch.ones(3))
    assert "weights cannot be replaced" in refused(exported, weights=weights).message
    assert "the type of add.pt2 is fixed" in refused(exported, dtype="float16").message


def test_other_archives_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "w.pt2"
    torch.save({"a": torch.ones(1)}, path)
    assert "is not an exported program but something else" in refused(str(path)).message
    path.write_bytes(b"nothing")
    assert "is not an exported program" in refused(str(path)).message


def test_nothing_in_an_exported_program_is_run(
    exported: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(((Trap(),), {}), tmp_path / "trap.pt")
    with (
        zipfile.ZipFile(exported) as before,
        zipfile.ZipFile(tmp_path / "trap.pt2", "w") as after,
    ):
        for item in before.infolist():
            sample = "sample_inputs" in item.filename
            content = (tmp_path / "trap.pt").read_bytes() if sample else before.read(item)
            after.writestr(item.filename, content)
    assert "carries pickled objects" in refused(str(tmp_path / "trap.pt2")).message
    assert not (tmp_path / "sprung").exists()
