# SPDX-License-Identifier: Apache-2.0
"""A segment that TensorRT fails on does not lose the build: what it fails on stays in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trtpack_runtime
from trtpack.converters import registry
from trtpack.converters.context import Context
from trtpack.options import Options
from trtpack.pipeline import build
from trtpack.report import BuildReport, Progress
from trtpack_runtime import builders
from trtpack_runtime.builders import Outcome, Work
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.errors import (
    BuildCancelled,
    BuildKilled,
    ConfigError,
    DeviceError,
    EngineBuildError,
)
from trtpack_runtime.network import Tensor


@torch.library.custom_op("trtpack_tests::attend", mutates_args=())
def attend(x: torch.Tensor) -> torch.Tensor:
    return torch.matmul(torch.softmax(x @ x.mT, -1), x)


@attend.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Attending(nn.Module):
    """An operator between others; ``attend`` has a converter in these tests only."""

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.before = nn.ModuleList(nn.Linear(8, 8) for _ in range(count))
        self.after = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for linear in self.before:
            x = attend(linear(x).relu())
        y: torch.Tensor = self.after(x).sigmoid() + x
        return y


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives ``attend`` a converter whose layer TensorRT-RTX takes but has no kernel for: attention
    in FLOAT that may not be decomposed."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @registry.converter(torch.ops.trtpack_tests.attend.default)
    def convert(ctx: Context, x: Tensor) -> Any:
        shape = (x.shape[0], 1, *x.shape[1:])
        four = ctx.reshape(x, shape)
        attended = ctx.add(
            "attention",
            {"query": four, "key": four, "value": four},
            normalization_op="SOFTMAX",
            causal=False,
            decomposable=False,
        )
        return ctx.reshape(attended, x.shape)


class Refusing:
    """Builds as TensorRT-RTX would, but fails where ``refuses`` answers an error for the layers."""

    def __init__(self, refuses: Callable[[set[str]], Exception | None]) -> None:
        self.refuses, self.works = refuses, list[Work]()
        self.known = builders.BUILDERS["tensorrt-rtx"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.known, name)

    def build(self, work: Work, plan: Path, site: Any, on_event: Any) -> Outcome:
        self.works.append(work)
        error = self.refuses({layer.name for layer in work.network.layers})
        if error is not None:
            raise error
        plan.write_bytes(b"engine of " + work.network.to_bytes())
        return Outcome({"made": "here"})

    def cannot_build(self, site: Any) -> str | None:
        return None

    def parts(self, content: str, options: Any, site: Any) -> dict[str, Any]:
        return {"content": content, "options": options}


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Refusing]:
    def use(refuses: Callable[[set[str]], Exception | None]) -> Refusing:
        double = Refusing(refuses)
        monkeypatch.setattr(builders, "BUILDERS", {**builders.BUILDERS, "tensorrt-rtx": double})
        return double

    return use


def fails_on(part: str, layers: tuple[str, ...] = ()) -> Callable[[set[str]], Exception | None]:
    def refuses(names: set[str]) -> Exception | None:
        if any(part in name for name in names):
            return EngineBuildError("forward_0: TensorRT built no engine: no kernel", layers=layers)
        return None

    return refuses


def made(path: Path, model: nn.Module, x: torch.Tensor, **options: Any) -> BuildReport:
    chosen = Options(targets=("rtx-4090",), output=path, min_block_size=1, **options)
    return build((model, (x,)), chosen, Progress())


def two_linears() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.Sigmoid())


def test_what_it_fails_on_stays_in_pytorch_and_the_rest_is_built(
    tmp_path: Path, refusing: Any
) -> None:
    double = refusing(fails_on("/gelu"))
    model, x = two_linears(), torch.randn(2, 8)
    report = made(tmp_path / "b.tar", model, x)
    (target,) = report.targets
    assert [s.kind for s in target.segments] == ["tensorrt", "torch", "tensorrt"]
    assert [(e.segment, e.kind, e.nbytes > 0) for e in target.engines] == [
        ("forward_0", "tensorrt-rtx", True),
        ("forward_2", "tensorrt-rtx", True),
    ]
    (refused,) = target.refused
    assert (refused.op, refused.failed) == ("aten.gelu.default", True)
    assert refused.reason.startswith("TensorRT-RTX ")
    assert refused.reason.endswith("refused it: TensorRT built no engine: no kernel")
    text = " ".join(report.to_text().split())
    assert "kept in PyTorch after TensorRT failed on it at 1" in text
    assert report.to_json()["targets"][0]["refused"][0]["failed"] is True
    assert len(double.works) < 20
    stored = open_bundle(tmp_path / "b.tar").manifest.report["targets"]["rtx-4090"]
    assert stored["refused"][0]["op"] == "aten.gelu.default"
    loaded = trtpack_runtime.load(tmp_path / "b.tar", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x))


def test_a_named_layer_needs_no_search(tmp_path: Path, refusing: Any) -> None:
    double = refusing(fails_on("/gelu", layers=("1/gelu",)))
    report = made(tmp_path / "b.tar", two_linears(), torch.randn(2, 8))
    assert report.targets[0].refused[0].op == "aten.gelu.default"
    assert len(double.works) == 3  # the whole, and the two that are left


def test_what_was_built_before_is_not_built_again(tmp_path: Path, refusing: Any) -> None:
    double = refusing(fails_on("/sigmoid", layers=("3/sigmoid",)))
    made(
        tmp_path / "b.tar",
        two_linears(),
        torch.randn(2, 8),
        torch_ops=("aten.gelu.default",),
        cache=False,
    )
    names = [work.network.outputs for work in double.works]
    assert len(names) == len(set(names)) == 3
    assert not (tmp_path / "cache").exists()


def test_strict_fails_with_what_tensorrt_said(tmp_path: Path, refusing: Any) -> None:
    double = refusing(fails_on("/gelu"))
    with pytest.raises(EngineBuildError, match="no kernel"):
        made(tmp_path / "b.tar", two_linears(), torch.randn(2, 8), strict=True)
    assert len(double.works) == 1
    assert list(tmp_path.glob("*.tar")) == []


@pytest.mark.parametrize(
    "error",
    [
        BuildCancelled("stopped"),
        BuildKilled("out of memory"),
        DeviceError("no GPU"),
        ConfigError("disk full"),
        EngineBuildError("this TensorRT has no build flag X"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_what_is_not_about_layers_ends_the_build(
    error: Exception, tmp_path: Path, refusing: Any
) -> None:
    double = refusing(lambda names: error)
    with pytest.raises(type(error)) as caught:
        made(tmp_path / "b.tar", two_linears(), torch.randn(2, 8))
    assert caught.value is error
    assert len(double.works) <= 2


def test_a_target_that_refuses_ever_more_ends(tmp_path: Path, refusing: Any) -> None:
    def refuses(names: set[str]) -> Exception:
        return EngineBuildError("no kernel", layers=(sorted(names)[0],))

    double = refusing(refuses)
    model = nn.Sequential(*(m for _ in range(12) for m in (nn.Linear(8, 8), nn.Sigmoid())))
    with pytest.raises(EngineBuildError, match="no kernel"):
        made(tmp_path / "b.tar", model, torch.randn(2, 8))
    assert len(double.works) < 60


@pytest.mark.slow
def test_tensorrt_rtx_really_fails_on_one_layer(tmp_path: Path, converted: None) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    torch.manual_seed(0)
    model, x = Attending(2), torch.randn(2, 6, 8)
    report = made(tmp_path / "b.tar", model, x)
    (target,) = report.targets
    (refused,) = target.refused
    assert (refused.op, refused.count) == ("trtpack_tests.attend.default", 2)
    assert "TensorRT-RTX" in refused.reason
    assert [s.kind for s in target.segments] == [
        "tensorrt",
        "torch",
        "tensorrt",
        "torch",
        "tensorrt",
    ]
    engines = [engine for engine in target.engines if engine.kind == "tensorrt-rtx"]
    assert len(engines) == 3
    assert all(engine.nbytes for engine in engines)
    loaded = trtpack_runtime.load(tmp_path / "b.tar", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)
