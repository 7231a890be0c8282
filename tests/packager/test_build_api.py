# SPDX-License-Identifier: Apache-2.0
"""``trtpack.build`` from Python: the bundle computes what the model does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trtpack
import trtpack_runtime
from trtpack.inputs import parse_inputs


class Nested(nn.Module):
    """Dictionaries in and out, an optional keyword, a number beside the tensors."""

    def __init__(self, kind: str | None = "nested") -> None:
        super().__init__()
        self.kind = kind
        self.fc = nn.Linear(4, 4)

    def forward(self, batch: dict[str, Tensor], *, scale: Tensor | None = None) -> dict[str, Any]:
        y = torch.relu(self.fc(batch["a"]) + batch["b"])
        if scale is not None:
            y = y * scale
        return {"y": y, "parts": (y.sum(-1), y.amax(-1)), "kind": self.kind}


def options(folder: Path, **changes: Any) -> trtpack.Options:
    base = trtpack.Options(
        targets=("rtx-4090",), output=folder / "b.tar", engine="reference", samples=3
    )
    return dataclasses.replace(base, **changes)


@pytest.fixture
def nested() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    torch.manual_seed(0)
    inputs = {"a": torch.randn(2, 4), "b": torch.randn(2, 4)}
    return Nested(), (inputs,), {"scale": torch.rand(1) + 0.5}


def test_structure_survives(tmp_path: Path, nested: Any) -> None:
    model, args, kwargs = nested
    report = trtpack.build(nested, options=options(tmp_path)).report
    assert report.bundle is not None
    assert report.bundle.nbytes == (tmp_path / "b.tar").stat().st_size
    assert {v.name for v in report.inputs} >= {"scale"}
    assert all(a.failure is None for t in report.targets for a in t.agreement)
    loaded = trtpack_runtime.load(tmp_path / "b.tar")
    with torch.no_grad():
        wanted, got = model(*args, **kwargs), loaded(*args, **kwargs)
    torch.testing.assert_close(got["y"], wanted["y"])
    torch.testing.assert_close(got["parts"], wanted["parts"])
    assert got["kind"] == "nested"


def test_dynamic_dimensions_reach_the_device(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()).eval()
    inputs = parse_inputs(["1/2/8x3x8x8"])
    report = trtpack.build(model, options=options(tmp_path, inputs=inputs)).report
    assert report.inputs[0].shape_text == "1/2/8x3x8x8"
    assert report.outputs[0].shape_text == "1/2/8x144"
    loaded = trtpack_runtime.load(tmp_path / "b.tar")
    for batch in (1, 5, 8):
        x = torch.randn(batch, 3, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)


def test_an_exported_program_becomes_a_bundle(tmp_path: Path, nested: Any) -> None:
    _, args, kwargs = nested
    model = Nested(kind=None)  # torch.export.load cannot read a string among the outputs
    torch.export.save(torch.export.export(model, args, kwargs), tmp_path / "n.pt2")
    trtpack.build(str(tmp_path / "n.pt2"), options=options(tmp_path))
    loaded = trtpack_runtime.load(tmp_path / "b.tar")
    with torch.no_grad():
        torch.testing.assert_close(loaded(*args, **kwargs)["y"], model(*args, **kwargs)["y"])


def test_the_printed_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    report = trtpack.build(nested, options=options(Path())).report
    names: dict[str, Any] = {}
    exec("\n".join(report.usage()), names)
    assert names["outputs"]["y"].shape == (2, 4)


def test_a_dry_run_builds_and_writes_nothing(tmp_path: Path, nested: Any) -> None:
    report = trtpack.build(nested, options=options(tmp_path, dry_run=True)).report
    assert report.bundle is None
    assert report.targets[0].supported.total() > 0
    assert list(tmp_path.iterdir()) == []


def test_same_input_same_bytes(tmp_path: Path, nested: Any) -> None:
    bundles = []
    for name in ("a.tar", "b.tar"):
        trtpack.build(nested, options=options(tmp_path, output=tmp_path / name))
        bundles.append((tmp_path / name).read_bytes())
    assert bundles[0] == bundles[1]


def test_the_public_names_are_there() -> None:
    for name in trtpack.__all__:
        assert getattr(trtpack, name) is not None
    assert set(trtpack.__all__) <= set(dir(trtpack))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        trtpack.nothing  # noqa: B018 the access fails
