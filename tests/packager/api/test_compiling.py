# SPDX-License-Identifier: Apache-2.0
"""``trtpack.compile`` and ``trtpack.build``: a model, its inputs, and a module at once."""

from __future__ import annotations

import gc
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import trtpack
from trtpack.cli.build import build as command
from trtpack.errors import ConfigError, SourceError
from trtpack_runtime.errors import BundleError

FACTORY = """
import torch

def make():
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Softmax(1))
"""
X = torch.linspace(-1, 1, 12).reshape(3, 4)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def test_a_model_becomes_a_module_at_once(model: nn.Module) -> None:
    compiled = trtpack.compile(model, X, engine="reference")
    with torch.no_grad():
        torch.testing.assert_close(compiled(X), model(X))
    folder = compiled.bundle.path.parent
    assert folder.is_dir()
    del compiled
    gc.collect()
    assert not folder.exists()


def test_a_bundle_is_kept_where_it_was_asked_for(model: nn.Module, tmp_path: Path) -> None:
    options = trtpack.Options(output=tmp_path / "b.tar", engine="reference")
    bundle = trtpack.build(model, (X,), target="cpu", options=options)
    assert str(bundle) == bundle.report.to_text()
    copy = bundle.save(tmp_path / "copy.tar")
    bundle.path.unlink()
    assert torch.equal(copy.load()(X), trtpack.compile(model, X, options=options)(X))
    assert bundle.path.is_file()


def test_an_exported_program_in_memory_is_a_model(model: nn.Module) -> None:
    program = torch.export.export(model.eval(), (X,))
    with torch.no_grad():
        compiled = trtpack.compile(program, (X + 1,), engine="reference")
        torch.testing.assert_close(compiled(X), model(X))


def test_a_dry_run_has_no_file(model: nn.Module) -> None:
    bundle = trtpack.build(model, X, target="orin", dry_run=True)
    assert bundle.report.targets
    with pytest.raises(ConfigError, match="a dry run wrote no bundle"):
        bundle.load()


def test_a_bundle_that_is_gone_cannot_be_saved(model: nn.Module, tmp_path: Path) -> None:
    bundle = trtpack.build(model, X, target="orin", output=tmp_path / "bundle.tar")
    bundle.path.unlink()
    with pytest.raises(BundleError, match=r"the bundle is not at .*bundle\.tar any more"):
        bundle.save(tmp_path / "copy.tar")


def test_what_loading_does_not_take_is_refused_before_anything_is_built(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="loading has no setting 'devise'") as caught:
        trtpack.compile(model, X, load={"devise": "cpu"})
    assert caught.value.hint == "did you mean device?"


@pytest.mark.parametrize("setting", ["output", "report"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_built(
    setting: str, tmp_path: Path
) -> None:
    class Untouched(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("it was run")

    for place, problem in ((tmp_path, "is a folder"), (tmp_path / "no" / "f", "is no folder")):
        with pytest.raises(ConfigError, match=problem):
            trtpack.build(Untouched(), X, target="cpu", **{setting: place})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (nn.Linear, "the class Linear"),
        (torch.relu, "a builtin"),
        (None, "None"),
        (nn.LazyLinear(2), "a module whose parameters have no shapes yet: weight"),
        (torch.jit.trace(nn.ReLU(), torch.ones(1)), "a TorchScript module"),
    ],
)
def test_what_is_no_model_is_called_by_its_kind(given: Any, name: str) -> None:
    with pytest.raises(SourceError, match=f"model is {name}"):
        trtpack.compile(given, X)


def test_the_command_writes_the_same_bundle(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(FACTORY, encoding="utf-8")
    words = f"{file}:make -t orin --precision mixed -i input=1/2/4x8 --engine reference"
    result = CliRunner().invoke(command, [*words.split(), "-o", f"{tmp_path}/cli.tar"])
    assert result.exit_code == 0, result.output
    python = trtpack.build(
        f"{file}:make",
        trtpack.Input(((1, 2, 4), 8), name="input"),
        target="orin",
        options={"precision": "mixed", "engine": "reference", "output": tmp_path / "api.tar"},
    )
    assert python.path.read_bytes() == (tmp_path / "cli.tar").read_bytes()


def test_the_users_module_stays_as_it_was(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    drawn = [torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()]
    trtpack.compile(model, X.half(), engine="reference", dtype="float16")
    assert all(part.training for part in model.modules())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(drawn[0], torch.get_rng_state())
    assert drawn[1:] == [random.getstate(), numpy.random.get_state()[1].tolist()]
