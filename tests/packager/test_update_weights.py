# SPDX-License-Identifier: Apache-2.0
"""A built bundle takes other weights: every constant the passes and converters made follows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import trtpack_runtime
from tests.runtime.command import trtpack
from trtpack.options import Options
from trtpack.pipeline import build
from trtpack.report import Progress
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.samples import StoredTensor
from trtpack_tools.update_weights import update_weights

pytestmark = pytest.mark.filterwarnings("ignore::trtpack_runtime.loading.DegradedWarning")


class Mixed(nn.Module):
    """Batch norms to fold, tied weights, equal biases, a table, a view and a derived product."""

    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.two, self.after = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head, self.tied = nn.Linear(8, 8), nn.Linear(8, 8)
        self.tied.weight = self.head.weight
        for bias in (self.head.bias, self.tied.bias):
            nn.init.zeros_(bias)
        self.scale = nn.Parameter(torch.ones(8))
        self.register_buffer("table", torch.arange(8.0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.norm(self.one(x)).relu()
        y = self.after(self.two(y)).relu().mean((2, 3))
        y = self.head(y * self.scale.exp() + self.table) + torch.ones(8)
        return self.tied(y.softmax(1)), self.scale * 2


def model(seed: int, *, plain: bool) -> Mixed:
    torch.manual_seed(seed)
    made = Mixed().eval()
    if not plain:
        with torch.no_grad():
            for name, value in made.state_dict().items():
                if value.is_floating_point():
                    value.copy_(torch.rand_like(value) + (0.5 if "var" in name else 0))
    return made


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.mark.parametrize("targets", [("cpu",), ("orin", "rtx-4090")])
def test_a_bundle_computes_what_the_model_with_the_new_weights_does(
    tmp_path: Path, targets: tuple[str, ...]
) -> None:
    x = torch.randn(2, 3, 6, 6)
    path = tmp_path / "bundle.tar"
    engine = "reference" if targets == ("cpu",) else None
    options = Options(targets=targets, output=path, min_block_size=1, engine=engine)
    build((model(0, plain=True), (x,)), options, Progress())
    new = model(1, plain=False)
    file = tmp_path / "new.safetensors"
    write_safetensors(file, [StoredTensor(k, v) for k, v in new.state_dict().items()])
    updated = update_weights(open_bundle(path), file, path)
    assert updated.derived > 0
    for variant in updated.bundle.manifest.variants:
        loaded = trtpack_runtime.load(path, target=variant, build=False)
        with torch.no_grad():
            for got, want in zip(loaded(x), new(x), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        for name, value in new.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value)


class Fresh(nn.Module):
    """As it is initialised: a batch norm changes nothing, biases are zero, two layers are equal."""

    first: torch.Tensor
    second: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 16, 3), nn.BatchNorm2d(16, eps=1e-12)
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)
        self.two.load_state_dict(self.one.state_dict())
        nn.init.zeros_(self.conv.bias)
        for name in ("first", "second"):
            self.register_buffer(name, torch.arange(16.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x)).relu().mean((2, 3))
        return self.two(self.one(y + self.first).tanh() * self.second)


@pytest.mark.parametrize(
    ("target", "engine"),
    [("cpu", "reference"), pytest.param("cpu", None, marks=pytest.mark.slow), ("orin", None)],
)
def test_what_is_equal_only_in_a_fresh_model_comes_apart(
    tmp_path: Path, target: str, engine: str | None
) -> None:
    torch.manual_seed(0)
    old, x = Fresh().eval(), torch.randn(2, 4, 8, 8)
    path, file = tmp_path / "bundle.tar", tmp_path / "new.safetensors"
    options = Options(targets=(target,), output=path, min_block_size=1, engine=engine)
    build((old, (x,)), options, Progress())
    before = open_bundle(path).weights
    assert {before[name].same_as for name in ("conv.weight", "one.weight", "first")} == {None}
    assert (before["two.weight"].same_as, before["second"].same_as) == ("one.weight", "first")
    new = {
        name: torch.rand_like(value) + 0.5 if value.is_floating_point() else value
        for name, value in old.state_dict().items()
    }
    write_safetensors(file, [StoredTensor(name, value) for name, value in new.items()])
    updated = update_weights(open_bundle(path), file, path)
    old.load_state_dict(new)
    loaded = trtpack_runtime.load(path, build=False)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), old(x), rtol=1e-4, atol=1e-4)
    for name, value in new.items():
        assert torch.equal(loaded.state_dict()[name], value)
    after = updated.bundle.weights
    assert {after[name].same_as for name in new} == {None}


@pytest.mark.slow
def test_a_compiled_variant_goes_on_with_large_weights(tmp_path: Path) -> None:
    """AOTInductor reads them from the bundle; its small ones are part of the code."""
    torch.manual_seed(0)
    old, new = (nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)) for _ in "ab")
    path, x = tmp_path / "bundle.tar", torch.randn(2, 16)
    options = Options(targets=("cpu",), output=path)
    report = build((old.eval(), (x,)), options, Progress())
    if not any(engine.nbytes for target in report.targets for engine in target.engines):
        pytest.skip("no C++ compiler here")
    file = tmp_path / "new.safetensors"
    write_safetensors(file, [StoredTensor(k, v) for k, v in new.state_dict().items()])
    found = trtpack("update-weights", path, file, "--json")
    assert found.code == 0, found.err
    assert [kept["reason"] for kept in json.loads(found.out)["kept"]] == [
        "reads the weights from the bundle"
    ]
    loaded = trtpack_runtime.load(path)
    assert not loaded.degraded
    assert {segment.kind for segment in loaded.segments()} == {"inductor"}
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), new(x), rtol=1e-4, atol=1e-5)
