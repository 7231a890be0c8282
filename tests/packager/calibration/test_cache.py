# SPDX-License-Identifier: Apache-2.0
"""A calibration that is kept, and taken for its own model only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.packager.calibration.models import answer, captured_of
from trtpack.calibration.request import Quantization
from trtpack.errors import CalibrationError, ConfigError
from trtpack.lowering import Lowered, lower
from trtpack.options import ObserverName


class Small(nn.Module):
    """Two products."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.head(self.first(x).relu())
        return made


def small() -> tuple[Small, tuple[torch.Tensor]]:
    torch.manual_seed(0)
    return Small().eval(), (torch.randn(4, 16),)


def built(
    module: nn.Module, path: Path, dtype: str = "INT8", observer: ObserverName = "minmax"
) -> tuple[Lowered, int]:
    """The quantized model, and how often its data was read."""
    captured, asked = captured_of(module, small()[1]), []
    generator = torch.Generator().manual_seed(1)

    def samples() -> list[dict[str, torch.Tensor]]:
        asked.append(1)
        return [{"x": torch.randn(4, 16, generator=generator)} for _ in range(16)]

    return lower(captured, quantization=Quantization(dtype, observer, samples, path)), len(asked)


def test_a_second_build_needs_no_data(tmp_path: Path) -> None:
    module, args = small()
    path = tmp_path / "ranges.json"
    first, reads = built(module, path)
    second, again = built(module, path)
    assert (reads, again) == (1, 0)
    assert torch.equal(answer(first, args), answer(second, args))
    assert second.plan.quantization is not None
    assert second.plan.quantization["samples"] is None


def test_other_weights_types_and_observers_are_refused(tmp_path: Path) -> None:
    module, _ = small()
    path = tmp_path / "ranges.json"
    built(module, path)
    before = path.read_bytes()
    with pytest.raises(CalibrationError, match="of another type: wanted FP8, has INT8"):
        built(module, path, "FP8")
    with pytest.raises(CalibrationError, match="of another observer: wanted mse, has minmax"):
        built(module, path, observer="mse")
    with torch.no_grad():
        module.head.weight[0, 0] += 1
    with pytest.raises(CalibrationError, match="of another model"):
        built(module, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "other"}', '{"schema": 3}'])
def test_a_damaged_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match="cannot read the calibration cache"):
        built(small()[0], path)
    assert path.read_text() == text


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the calibration cache"):
        built(small()[0], tmp_path / "missing" / "ranges.json")


def test_the_file_is_plain(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    built(small()[0], path)
    kept = json.loads(path.read_text())
    assert kept["schema"] == "trtpack.calibration/1"
    assert kept["samples"] == 16
    assert kept["reaches"]["x"] > 3


class Chooses(nn.Module):
    """A product behind a branch that data chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cond(x.sum() > 0, lambda y: y * 2, lambda y: y - 1, (x,))
        made: torch.Tensor = self.linear(x)
        return made


def test_a_model_with_branches_has_a_key(tmp_path: Path) -> None:
    captured = captured_of(Chooses().eval(), (torch.randn(4, 16),))
    (name,) = (n for n in captured.inputs if n is not None)
    data = [{name: torch.randn(4, 16)}]
    asked = Quantization("INT8", "minmax", lambda: data, tmp_path / "ranges.json")
    assert lower(captured, quantization=asked).plan.quantization is not None
    assert (tmp_path / "ranges.json").is_file()
