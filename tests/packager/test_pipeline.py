# SPDX-License-Identifier: Apache-2.0
"""Whole builds of small models: what is in the bundle, that it is repeatable, that it is right."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trtpack_runtime
from trtpack.errors import CaptureError, UnsupportedOpError
from trtpack.inputs import parse_inputs, parse_profile
from trtpack.options import Options
from trtpack.pipeline import build
from trtpack.report import BuildReport, Progress
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.errors import CompileError, ConfigError, EngineBuildError
from trtpack_runtime.manifest import Limits


class Convolutional(nn.Module):
    """Small, with a batch norm to fold and a dict to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.norm(self.convolution(x)).relu().mean((2, 3))
        return {"logits": self.head(features), "features": features}


class Middle(nn.Module):
    """An operator TensorRT lacks between two layers it has."""

    def __init__(self, middle: Any) -> None:
        super().__init__()
        self.before, self.after, self.middle = nn.Linear(8, 8), nn.Linear(8, 8), middle

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x).relu()
        return self.after(y + self.middle(y))


class Counting(nn.Module):
    """Keeps a running sum in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(self.linear(x).sum(0))
        return x + self.total


@torch.library.custom_op("trtpack_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def made(
    model: Any, path: Path, targets: tuple[str, ...] = ("rtx-4090", "orin"), **options: Any
) -> BuildReport:
    chosen = Options(targets=targets, output=path, **options)
    return build(model, chosen, Progress())


def digests(path: Path) -> dict[str, str]:
    return {entry.name: entry.sha256 for entry in open_bundle(path).manifest.members}


def small() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    return Convolutional(), (torch.randn(2, 3, 8, 8),)


def test_a_bundle_loads_and_answers_as_the_model_does(tmp_path: Path) -> None:
    model, args = small()
    report = made((model, args), tmp_path / "bundle.tar", max_latency_ms=33.0)
    assert [engine.kind for target in report.targets for engine in target.engines] == [
        "tensorrt-rtx",
        "tensorrt",
    ]
    deferred = report.targets[1].engines[0].deferred
    assert deferred is not None
    assert "left to the device" in deferred
    loaded = trtpack_runtime.load(tmp_path / "bundle.tar")
    with torch.no_grad():
        wanted, got = model(*args), loaded(*args)
    assert list(got) == list(wanted)
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-4, atol=1e-5)
    assert loaded.bundle.manifest.methods["forward"].limits == Limits(33.0, None)


def test_an_engine_left_to_the_device_says_how_it_is_built(tmp_path: Path) -> None:
    made(small(), tmp_path / "bundle.tar", ("orin",), sparse=True, engine_weights="stripped")
    bundle = open_bundle(tmp_path / "bundle.tar")
    (engine,) = bundle.manifest.variants["orin"].engines.values()
    assert engine.member is None
    assert (engine.options["sparse"], engine.options["weights"]) == (True, "stripped")
    assert engine.content is not None


def test_further_profiles_are_in_the_network_and_its_engine(tmp_path: Path) -> None:
    model, _ = small()
    inputs, profiles = parse_inputs(["1/2/6x3x8x8"]), (parse_profile("x=1x3x8x8"),)
    made(model, tmp_path / "bundle.tar", ("rtx-4090",), inputs=inputs, profiles=profiles)
    bundle = open_bundle(tmp_path / "bundle.tar")
    (name,) = (e.name for e in bundle.manifest.members if e.name.startswith("networks/"))
    shapes = [profile["x"] for profile in bundle.json(name)["profiles"]]
    assert shapes == [[[b, 3, 8, 8] for b in sizes] for sizes in ((1, 2, 6), (1, 1, 1))]
    (method,) = bundle.manifest.methods.values()
    assert (method.inputs[0].min, method.inputs[0].max) == ((1, 3, 8, 8), (6, 3, 8, 8))


def test_what_a_target_lacks_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--engine-weights stripped is not possible"):
        made("no.such:model", tmp_path / "b.tar", ("orin@jetpack-6.0",), engine_weights="stripped")


def test_without_the_cache_nothing_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        report = made(small(), tmp_path / "bundle.tar", ("rtx-4090",), cache=False)
        assert not report.targets[0].engines[0].cached
    assert not (tmp_path / "cache" / "trtpack").exists()


def test_every_original_parameter_is_in_the_state_dict(tmp_path: Path) -> None:
    model, args = small()
    made((model, args), tmp_path / "bundle.tar")
    state = trtpack_runtime.load(tmp_path / "bundle.tar").state_dict()
    assert set(state) == set(model.state_dict())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    made(small(), tmp_path / "one.tar")
    made(small(), tmp_path / "two.tar")  # its engine comes from the cache
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_without_the_cache_everything_but_engines_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(small(), tmp_path / "one.tar")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    made(small(), tmp_path / "two.tar")
    one, two = digests(tmp_path / "one.tar"), digests(tmp_path / "two.tar")
    assert one.keys() == two.keys()
    assert {n for n in one if one[n] != two[n]} <= {n for n in one if n.startswith("engines/")}


@pytest.mark.parametrize(
    ("targets", "options"),
    [
        (("orin", "thor", "cpu"), {"engine": "reference"}),
        (("orin", "thor", "h200"), {"engine_weights": "stripped"}),
    ],
    ids=["evaluated", "stripped"],
)
def test_targets_share_one_weight_store(
    targets: tuple[str, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    made(small(), tmp_path / "one.tar", ("orin",))
    made(small(), tmp_path / "two.tar", targets, **options)
    stored = [
        {e.name: e.size for e in open_bundle(tmp_path / name).manifest.members}
        for name in ("one.tar", "two.tar")
    ]
    weights = [[n for n in sizes if n.startswith("weights/")] for sizes in stored]
    assert weights[0] == weights[1] == ["weights/0.safetensors"]
    assert stored[0]["weights/0.safetensors"] == stored[1]["weights/0.safetensors"]


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        (None, ("cpu: 1 PyTorch segment, by engine kind inductor", "orin: 1 TensorRT segment")),
        (
            "reference",
            (
                "cpu: 1 PyTorch segment, by engine kind reference",
                "orin: 1 TensorRT segment, by engine kind reference",
            ),
        ),
        ("inductor", ("cpu, orin: 1 PyTorch segment, by engine kind inductor",)),
    ],
)
def test_the_report_names_the_engine_kind(
    engine: Any, told: tuple[str, ...], tmp_path: Path
) -> None:
    report = made(small(), tmp_path / "b.tar", ("cpu", "orin"), engine=engine, dry_run=True)
    lines = report.to_text().splitlines()
    assert set(told) <= set(lines)
    of_tensorrt = any("TensorRT" in line for line in told)
    assert ("  Unsupported operators: none" in lines) == of_tensorrt


@pytest.mark.parametrize(
    ("middle", "operator", "compiled"),
    [
        (lambda y: torch.unique(y).sum(), "aten._unique2.default", False),
        (lambda y: y[y > 0].sum(), "aten.index.Tensor", False),
        (lambda y: torch.fft.irfft(torch.fft.rfft(y), n=8), "aten._fft_r2c.default", True),
        (lambda y: twice(y), "trtpack_tests.twice.default", False),  # alone
    ],
    ids=["unique", "mask", "rfft", "custom"],
)
def test_an_operator_tensorrt_lacks_runs_between_two_engines(
    middle: Any, operator: str, compiled: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, x = Middle(middle), torch.randn(4, 8)
    report = made((model, (x,)), tmp_path / "bundle.tar", ("rtx-4090",), min_block_size=1)
    (target,) = report.targets
    assert [s.kind for s in target.segments] == ["tensorrt", "torch", "tensorrt"]
    engines = [e.kind for e in target.engines if e.deferred is None]
    assert engines == ["tensorrt-rtx", "tensorrt-rtx"]
    left = [e.kind for e in target.engines if e.deferred]
    assert left == (["inductor"] if compiled else [])
    (refused,) = (r for r in target.refused if r.op == operator)
    assert refused.reason
    assert refused.reason in " ".join(report.to_text().split())
    loaded = trtpack_runtime.load(tmp_path / "bundle.tar")
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)
    (borders,) = loaded.bundle.manifest.methods["forward"].borders
    assert set(borders) == {name for s in loaded.segments()[:-1] for name in s.outputs}


def test_a_custom_operators_module_is_required_by_name(tmp_path: Path) -> None:
    made((Middle(lambda y: twice(y)), (torch.randn(4, 8),)), tmp_path / "bundle.tar", ("orin",))
    requires = open_bundle(tmp_path / "bundle.tar").manifest.requires
    assert any("trtpack_tests" in entry or "test_pipeline" in entry for entry in requires)


def test_strict_refuses_to_leave_anything_to_pytorch(tmp_path: Path) -> None:
    model = Middle(lambda y: torch.unique(y).sum())
    with pytest.raises(UnsupportedOpError, match=r"_unique2\.default .*test_pipeline\.py"):
        made((model, (torch.randn(4, 8),)), tmp_path / "bundle.tar", strict=True)
    assert not (tmp_path / "bundle.tar").exists()


def test_a_dry_run_writes_nothing_and_reports_the_plan(tmp_path: Path) -> None:
    report = made(small(), tmp_path / "bundle.tar", dry_run=True)
    assert list(tmp_path.iterdir()) == []
    assert report.bundle is None
    assert report.targets[0].segments[0].layers == 5


def test_state_is_kept_and_reset(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Counting(), torch.randn(2, 4)
    made((model, (x,)), tmp_path / "bundle.tar", ("orin",))
    loaded = trtpack_runtime.load(tmp_path / "bundle.tar")
    with torch.no_grad():
        first, second = loaded(x), loaded(x)
        torch.testing.assert_close(first, model(x))
        torch.testing.assert_close(second, model(x))
    loaded.reset()
    torch.testing.assert_close(loaded(x), first)


class Careless(nn.Module):
    """Replaces its buffer, answers it, and writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("total", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total = self.total + self.linear(x).sum(0)
        x.mul_(2)
        return self.total


def test_building_leaves_the_models_state_and_inputs_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Careless(), torch.randn(2, 4)
    total, before = model.total, x.clone()
    made((model, (x,)), tmp_path / "bundle.tar", ("orin",), samples=2)
    assert model.total is total
    torch.testing.assert_close(total, torch.ones(4), rtol=0, atol=0)
    torch.testing.assert_close(x, before, rtol=0, atol=0)
    loaded = trtpack_runtime.load(tmp_path / "bundle.tar")
    with torch.no_grad():
        torch.testing.assert_close(loaded(x.clone()), model(x.clone()))


def test_dynamic_sizes_are_proved_at_both_ends(tmp_path: Path) -> None:
    model, _ = small()
    inputs = parse_inputs(["1/2/6x3x8x8"])
    report = made(model, tmp_path / "bundle.tar", ("rtx-4090",), inputs=inputs, samples=3)
    assert len({a.sample for a in report.targets[0].agreement}) == 3
    loaded = trtpack_runtime.load(tmp_path / "bundle.tar")
    for batch in (1, 5, 6):
        x = torch.randn(batch, 3, 8, 8)
        with torch.no_grad():
            wanted = model(x)["logits"]
        torch.testing.assert_close(loaded(x)["logits"], wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"dim(ension)? 0"):
        loaded(torch.randn(7, 3, 8, 8))


@pytest.mark.parametrize("target", ["rtx-4090", pytest.param("cpu", marks=pytest.mark.slow)])
def test_outputs_no_layer_computes(target: str, tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3))

        def forward(self, x: torch.Tensor) -> list[Any]:
            y = x * 2
            return [y, x, self.weight + 1, y, 7, x.shape[0], None]

    model, x = Mixed(), torch.randn(3)
    made((model, (x,)), tmp_path / "bundle.tar", (target,))
    loaded = trtpack_runtime.load(tmp_path / "bundle.tar")
    with torch.no_grad():
        for got, wanted in zip(loaded(x), model(x), strict=True):
            assert type(got) is type(wanted) or isinstance(wanted, nn.Parameter)
            if isinstance(wanted, torch.Tensor):
                torch.testing.assert_close(got, wanted.detach())
            else:
                assert got == wanted


def test_a_size_only_the_data_tells_cannot_be_an_output(tmp_path: Path) -> None:
    class Counts(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            found = x.nonzero()
            return found, found.shape[0]

    with pytest.raises(CompileError, match="which no input's shape tells"):
        made((Counts(), (torch.randn(3),)), tmp_path / "bundle.tar", ("orin",))


def test_a_failed_build_keeps_the_old_bundle(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar"
    path.write_bytes(b"the old one")

    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(CaptureError):
        made((Branches(), (torch.randn(3),)), path)
    assert path.read_bytes() == b"the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle.tar"]


def test_a_wrong_program_is_never_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtpack import pipeline

    def spoiled(*args: Any) -> Any:
        ((sample, *_),) = pipeline_record(*args)
        wrong = tuple(value + 1 for value in sample.outputs)
        return [(dataclasses.replace(sample, outputs=wrong),)]

    pipeline_record = pipeline.record_golden
    monkeypatch.setattr(pipeline, "record_golden", spoiled)
    with pytest.raises(CompileError, match="does not compute what the model does"):
        made(small(), tmp_path / "bundle.tar", ("orin",))
    assert not (tmp_path / "bundle.tar").exists()


@pytest.mark.slow
def test_the_cpu_target_is_one_compiled_segment(tmp_path: Path) -> None:
    model, args = small()
    report = made((model, args), tmp_path / "bundle.tar", ("cpu",))
    (engine,) = report.targets[0].engines
    assert engine.kind == "inductor"
    loaded = trtpack_runtime.load(tmp_path / "bundle.tar")
    assert not loaded.degraded
    with torch.no_grad():
        torch.testing.assert_close(loaded(*args)["logits"], model(*args)["logits"])


@pytest.mark.parametrize("strict", [False, True])
def test_a_cpu_target_that_cannot_be_compiled_runs_in_pytorch(
    strict: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise EngineBuildError("AOTInductor failed: Loud: no\n  its last line", hint="")

    monkeypatch.setattr("trtpack_runtime.engines._inductor_build.build_in_child", refuse)
    model, args = small()
    path = tmp_path / "bundle.tar"
    if strict:
        with pytest.raises(EngineBuildError, match="its last line"):
            made((model, args), path, ("cpu",), cache=False, strict=True)
        return
    report = made((model, args), path, ("cpu",), cache=False)
    assert "cpu  forward_0  uncompiled, PyTorch runs it: AOTInductor failed" in report.to_text()
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "cpu: PyTorch runs forward_0 uncompiled, slower: AOTInductor failed: Loud: no"
    ]
    with torch.no_grad():
        wanted, got = model(*args), trtpack_runtime.load(path)(*args)
    torch.testing.assert_close(got["logits"], wanted["logits"])
