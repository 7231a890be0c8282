# SPDX-License-Identifier: Apache-2.0
"""A compiled model takes other weights, on real engines."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trtpack
from trtpack.target import find_target
from trtpack_runtime.errors import BundleError
from trtpack_runtime.starting import DegradedWarning

X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


def model(seed: int, classes: int = 32) -> nn.Module:
    """A batch norm to fold, and statistics that are not as they are initialised."""
    torch.manual_seed(seed)
    norm, head = nn.BatchNorm2d(16), nn.Linear(16 * 36, classes)
    for statistic in (norm.running_mean, norm.running_var, norm.weight.data):
        assert statistic is not None
        statistic.uniform_(0.5, 1.5)
    return nn.Sequential(nn.Conv2d(3, 16, 3), norm, nn.ReLU(), nn.Flatten(), head).eval()


def right(compiled: nn.Module, wanted: nn.Module, device: str = "cpu") -> None:
    with torch.no_grad():
        got = compiled(X.to(device)).cpu()
        torch.testing.assert_close(got, wanted(X), rtol=1e-3, atol=1e-3)


def exchanged(device: str = "cpu", **settings: Any) -> None:
    """Weights there and back again."""
    first, second = model(0), model(1)
    compiled = trtpack.compile(first, X, **settings)
    kinds = [segment.kind for segment in compiled.segments()]
    for state in (second, first, second):
        compiled.load_state_dict(state.state_dict())
        assert compiled.stale
        right(compiled, state, device)
        assert [segment.kind for segment in compiled.segments()] == kinds
    assert not compiled.degraded


def test_pytorch_goes_on_with_them() -> None:
    exchanged(engine="reference")


def test_what_is_written_in_place_is_taken_by_refit() -> None:
    """The parameters stay the same objects, equal ones are not one, and constants follow."""
    original = model(0)
    with torch.no_grad():
        original[1].weight.fill_(1.0)
        original[1].running_var.fill_(1.0)
    compiled = trtpack.compile(original, X, engine="reference")
    parameters = list(compiled.parameters())
    for change in (lambda p: p.mul_(2), lambda p: p.data.add_(0.5)):
        with torch.no_grad():
            for module in (compiled, original):
                for parameter in module.parameters():
                    change(parameter)
                module.get_submodule("1").running_mean.add_(1)
        compiled.refit()
        right(compiled, original)
    assert all(map(operator.is_, parameters, compiled.parameters()))
    compiled.load_state_dict(original.state_dict())
    assert not compiled.stale, "it has them"


def test_parameters_put_in_place_of_others_are_taken_by_refit() -> None:
    original, other = model(0), model(1)
    compiled = trtpack.compile(original, X, engine="reference")
    compiled.load_state_dict(dict(other.named_parameters()), assign=True, strict=False)
    original.load_state_dict(dict(other.named_parameters()), strict=False)
    right(compiled, original)
    head = nn.Parameter(torch.rand_like(original[4].weight))
    for module in (compiled, original):
        module.get_submodule("4").weight = head
    compiled.refit()
    right(compiled, original)
    assert compiled.get_submodule("4").weight is head


def test_refit_without_the_bundles_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.tar"
    compiled = trtpack.compile(model(0), X, engine="reference", output=path)
    path.unlink()
    compiled.load_state_dict(model(1).state_dict())
    compiled.refit()
    right(compiled, model(1))
    with pytest.raises(BundleError, match="is no longer there"):
        compiled.refit()
    right(compiled, model(1))


class Counting(nn.Module):
    """Two methods of one set of weights and one state."""

    total: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("total", torch.zeros(4))

    def add(self, x: torch.Tensor) -> torch.Tensor:
        self.total += self.fc(x).sum(0)
        return self.total + 0

    def mean(self, count: torch.Tensor) -> torch.Tensor:
        return self.fc(self.total / count)


def test_every_method_has_them_and_state_stays() -> None:
    first, second, x = Counting(), Counting(), torch.randn(2, 4)
    count = torch.tensor(2.0)
    methods = {"add": trtpack.Method(x), "mean": trtpack.Method(count)}
    compiled = trtpack.compile(first, methods, engine="reference")
    with torch.no_grad():
        torch.testing.assert_close(compiled.add(x), first.add(x))
        weights = {n: v for n, v in second.state_dict().items() if n != "total"}
        compiled.load_state_dict(weights, strict=False)
        first.load_state_dict(weights, strict=False)
        torch.testing.assert_close(compiled.mean(count), first.mean(count))
        torch.testing.assert_close(compiled.add(x), first.add(x))


@pytest.mark.slow
def test_a_library_of_aotinductor_goes_on_with_them() -> None:
    exchanged(target="cpu", engine="inductor")


@pytest.mark.slow
def test_what_is_part_of_its_code_is_left_to_pytorch() -> None:
    compiled = trtpack.compile(model(0, classes=4), X, target="cpu", engine="inductor")
    compiled.load_state_dict(model(1, classes=4).state_dict())
    with pytest.warns(DegradedWarning, match="is a part of its code"):
        right(compiled, model(1, classes=4))
    assert [segment.kind for segment in compiled.segments()] == ["reference"]


@pytest.mark.gpu
@pytest.mark.parametrize("weights", ["refittable", "stripped"])
@pytest.mark.parametrize("graphs", ["off", "on"])
def test_an_engine_is_refitted(weights: str, graphs: str) -> None:
    pytest.importorskip("tensorrt", reason="TensorRT is not installed")
    if weights == "stripped" and not find_target("native").tensorrt_at_least("10.2"):
        pytest.skip("TensorRT strips engines from 10.2 on")
    load = {"cuda_graphs": graphs, "strict": True}
    exchanged("cuda", target="native", engine_weights=weights, load=load)
