# SPDX-License-Identifier: Apache-2.0
"""Segments compiled by AOTInductor: weights stay mapped, sizes stay dynamic, failures are told."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.runtime.graphs import stored
from trtpack_runtime import dims
from trtpack_runtime.engines import LoadContext, inductor, inductor_build
from trtpack_runtime.errors import BundleError, EngineBuildError
from trtpack_runtime.network import Profile, Tensor
from trtpack_runtime.program import Segment
from trtpack_runtime.safetensors import open_safetensors, write_safetensors
from trtpack_runtime.samples import StoredTensor


class Model(nn.Module):
    """Shares a dynamic size between two inputs and has a weight with an awkward name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1024)
        self.register_buffer("scale|folded", torch.linspace(1, 2, 1024))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.layer(x).relu() * self._buffers["scale|folded"]
        return hidden @ hidden.T + y, torch.fft.rfft(y).abs()


@dataclass
class Built:
    model: Model
    graph: dict[str, Any]
    weights: Path
    package: Path
    record: dict[str, Any]

    def context(self) -> LoadContext:
        constants = {k: v.tensor() for k, v in open_safetensors(self.weights).items()}
        segment = Segment("forward_0", "aten", {"x0": "a", "x1": "b"}, {}, graph=self.graph)
        return LoadContext(segment, constants, torch.device("cpu"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("inductor")
    model = Model().eval()
    batch = torch.export.Dim("batch", min=1, max=6)
    graph, constants = stored(
        model, (torch.randn(3, 8), torch.randn(3, 3)), ({0: batch}, {0: batch, 1: batch})
    )
    weights, package = folder / "w.safetensors", folder / "forward_0.pt2"
    write_safetensors(weights, [StoredTensor(k, v) for k, v in constants.items()])
    size = dims.dim("x0", 0)
    lines: list[str] = []
    before = set(Path.cwd().iterdir())
    record = inductor_build.build_in_child(
        graph,
        [weights],
        [Tensor("x0", "FLOAT", (size, 8)), Tensor("x1", "FLOAT", (size, size))],
        package,
        profile=Profile({"x0": ((1, 8), (1, 8), (6, 8)), "x1": ((1, 1), (1, 1), (6, 6))}),
        log=lines.append,
    )
    assert set(Path.cwd().iterdir()) == before
    assert {p.name for p in folder.iterdir()} == {"w.safetensors", "forward_0.pt2"}
    return Built(model, graph, weights, package, record)


def test_every_size_of_the_profile_computes_the_same(built: Built) -> None:
    run = inductor.load(memoryview(built.package.read_bytes()), built.context())
    for size in (1, 2, 5, 6):
        x, y = torch.randn(size, 8), torch.randn(size, size)
        with torch.inference_mode():
            for got, want in zip(run([x, y]), built.model(x, y), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_inputs_with_other_strides_compute_the_same(built: Built) -> None:
    run = inductor.load(built.package, built.context())
    x, y = torch.randn(8, 4).T, torch.randn(8, 8)[::2, ::2]
    with torch.no_grad():
        torch.testing.assert_close(run([x, y])[0], built.model(x, y)[0], rtol=1e-4, atol=1e-4)


def test_weights_stay_where_they_are_mapped(built: Built) -> None:
    context = built.context()
    run = inductor.load(built.package, context)
    x, y = torch.randn(2, 8), torch.zeros(2, 2)
    assert run([x, y])[0].abs().sum() > 0
    context.constants["scale|folded"].zero_()
    assert run([x, y])[0].abs().sum() == 0
    assert built.package.stat().st_size < 4 << 20


def test_loading_unpickles_nothing(built: Built) -> None:
    watched = threading.get_ident()
    found: list[Any] = []
    sys.addaudithook(
        lambda event, args: (
            found.append(args)
            if event == "pickle.find_class" and threading.get_ident() == watched
            else None
        )
    )
    inductor.load(memoryview(built.package.read_bytes()), built.context())
    watched = 0
    assert found == []


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "torch": torch.__version__,
        "os": "linux",
        "arch": os.uname().machine,
        "cpu": {"flags": inductor.cpu_flags()},
    } | changes


def test_the_record_fits_this_machine(built: Built) -> None:
    assert inductor.check(built.record, facts()).fit == "exact"


@pytest.mark.parametrize(
    ("changes", "fit", "reason"),
    [
        ({"torch": None}, "impossible", "PyTorch is not installed"),
        ({"torch": "2.3.1"}, "rebuild", "this machine has 2.3.1"),
        ({"arch": "riscv64"}, "rebuild", "this machine is riscv64"),
        ({"os": "darwin"}, "rebuild", "built for linux, this machine is darwin"),
        ({"cpu": {"flags": []}}, "rebuild", "CPU instructions this machine lacks"),
    ],
)
def test_another_machine_is_told_why(
    built: Built, changes: dict[str, Any], fit: str, reason: str
) -> None:
    verdict = inductor.check(built.record, facts(**changes))
    assert verdict.fit == fit
    assert reason in verdict.reason


def test_a_broken_package_is_a_broken_bundle(built: Built) -> None:
    with pytest.raises(BundleError, match="cannot load the compiled segment forward_0"):
        inductor.load(memoryview(b"PK\x03\x04 not a package"), built.context())


def _build_neg(tmp_path: Path, op: str = "aten.neg.default") -> dict[str, Any]:
    node = {"name": "y", "op": op, "args": [{"value": "x"}], "kwargs": {}}
    graph = {"schema": "trtpack.aten/1", "inputs": ["x"], "outputs": ["y"], "nodes": [node]}
    return inductor_build.build_in_child(
        graph, [], [Tensor("x", "FLOAT", (4,))], tmp_path / "neg.pt2"
    )


def test_without_a_compiler_the_hint_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EngineBuildError, match="no C\\+\\+ compiler") as caught:
        _build_neg(tmp_path)
    assert "install a C++ compiler" in caught.value.hint
    assert not (tmp_path / "neg.pt2").exists()


def test_a_failed_build_ends_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"has no operator my_ops\.twist") as caught:
        _build_neg(tmp_path, "my_ops.twist.default")
    assert "--import" in caught.value.hint


def test_a_crash_of_the_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inductor_build.sys, "executable", "/bin/false")
    with pytest.raises(EngineBuildError, match="died with status 1"):
        _build_neg(tmp_path)
