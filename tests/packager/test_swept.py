# SPDX-License-Identifier: Apache-2.0
"""A model for ``trtpack sweep``: built with its first dimension open."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtpack.errors import ConfigError
from trtpack.swept import bundle_of
from trtpack_runtime.bundle import open_bundle

MODEL = """
import torch

def pair():
    net = torch.nn.Bilinear(4, 3, 2)
    return net.eval(), (torch.ones(2, 4), torch.ones(2, 3))

def nested():
    class Net(torch.nn.Module):
        def forward(self, pair):
            return pair[0] + pair[1]
    return Net(), ((torch.ones(2), torch.ones(2)),)
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "net.py").write_text(MODEL)
    return str(tmp_path / "net.py")


@pytest.mark.parametrize("specs", [(), ("2x4", "2x3")], ids=["its own inputs", "inputs given"])
def test_the_first_dimension_of_every_input_is_open(
    model: str, specs: tuple[str, ...], tmp_path: Path
) -> None:
    bundle = bundle_of(f"{model}:pair", specs, (1, 4, 16), "orin", tmp_path)
    inputs = open_bundle(bundle).manifest.methods["forward"].inputs
    assert [(spec.min, spec.max) for spec in inputs] == [((1, 4), (16, 4)), ((1, 3), (16, 3))]


def test_inputs_that_cannot_be_told_are_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are nested, or not all tensors"):
        bundle_of(f"{model}:nested", (), (), "orin", tmp_path)
    with pytest.raises(ConfigError, match="a sweep makes inputs of its own"):
        bundle_of(f"{model}:pair", ("@samples.npz",), (), "orin", tmp_path)
