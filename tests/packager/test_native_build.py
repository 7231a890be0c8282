# SPDX-License-Identifier: Apache-2.0
"""``-t native`` from the model to the bundle: a child process builds with a double of TensorRT."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.packager.machines import facts
from trtpack import building, early
from trtpack.cli.build import run_build
from trtpack.inputs import parse_inputs, parse_profile
from trtpack.options import Options
from trtpack.pipeline import build
from trtpack.report import BuildReport, Progress
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["8.6", pytest.param("10.3", marks=pytest.mark.slow), "10.16"])
def release(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes this an H200 with a double of that release, here and in the child process."""
    release: str = request.param
    package = tmp_path / "doubles" / "tensorrt"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        f'__version__ = "{release}.0"\n'
        "import sys\n"
        "from tests.runtime.trt_double import double\n"
        f"sys.modules[__name__] = double({release!r})\n"
    )
    path = os.pathsep.join([str(package.parent), str(ROOT)])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def here(**changes: Any) -> dict[str, Any]:
        memory = {"total_bytes": 61 << 30, "available_bytes": 50 << 30}
        return facts(tensorrt=f"{release}.0", **{"memory": memory, **changes})

    monkeypatch.setattr("trtpack_runtime.device.facts", here)
    monkeypatch.setattr(building, "facts", here)
    monkeypatch.setattr(early, "facts", here)
    return release


def made(path: Path, **options: Any) -> BuildReport:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    inputs = parse_inputs(["input=1/2/6x3x8x8"])
    chosen = Options(output=path, inputs=inputs, **{"targets": ("native",), **options})
    return build(model, chosen, Progress())


def test_an_engine_is_built_here_and_known_the_next_time(tmp_path: Path, release: str) -> None:
    profiles = (parse_profile("input=1x3x8x8"),)
    report = made(tmp_path / "b.tar", strict=True, profiles=profiles, optimization_level=2)
    (engine,) = report.targets[0].engines
    assert (engine.kind, engine.deferred, engine.cached) == ("tensorrt", None, False)
    assert engine.nbytes
    (ref,) = open_bundle(tmp_path / "b.tar").manifest.variants["native"].engines.values()
    assert ref.record["device"] == "NVIDIA H200"
    assert ref.record["tensorrt"].startswith(release)
    assert ref.options["optimization_level"] == 2
    again = made(tmp_path / "c.tar", strict=True, profiles=profiles, optimization_level=2)
    assert again.targets[0].engines[0].cached
    assert (tmp_path / "b.tar").read_bytes() == (tmp_path / "c.tar").read_bytes()


def test_every_option_reaches_the_build(tmp_path: Path, release: str) -> None:
    stripped = "refittable" if release == "8.6" else "stripped"
    options: dict[str, Any] = {
        "engine_weights": stripped,
        "sparse": True,
        "workspace_bytes": 1 << 30,
    }
    if release == "10.16":
        options |= {"hardware_compatible": "same-sm", "debug_tensors": ("*gelu*",)}
    report = made(tmp_path / "b.tar", strict=True, **options)
    assert report.targets[0].engines[0].weights == stripped
    (ref,) = open_bundle(tmp_path / "b.tar").manifest.variants["native"].engines.values()
    assert ref.record["options"] == ref.options
    assert (ref.options["sparse"], ref.options["workspace_bytes"]) == (True, 1 << 30)
    assert bool(ref.options["debug"]) == (release == "10.16")


def test_locked_to_what_was_measured(tmp_path: Path, release: str) -> None:
    if release == "8.6":
        with pytest.raises(ConfigError, match=r"TensorRT 10\.0 has it"):
            made(tmp_path / "b.tar", locked=True)
        return
    with pytest.raises(ConfigError, match="no tactics to lock native to"):
        made(tmp_path / "b.tar", locked=True)
    made(tmp_path / "b.tar")
    report = made(tmp_path / "c.tar", locked=True, tactics=tmp_path / "b.tar")
    (engine,) = report.targets[0].engines
    assert engine.tactics is not None
    assert not engine.cached
    if release == "10.16":
        assert engine.tactics.unchanged == engine.tactics.known
        assert engine.tactics.known
        assert "tactics as locked (" in " ".join(report.to_text().split())
    else:
        assert (engine.tactics.locked, engine.tactics.unchanged) == (True, None)
        assert "locked to an opaque cache of" in " ".join(report.to_text().split())


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({}, ["tensorrt"]), ({"defer": True}, []), ({"targets": ("orin",)}, [])],
)
def test_tensorrt_comes_up_while_the_model_is_captured(
    tmp_path: Path,
    release: str,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    wanted: list[str],
) -> None:
    started: list[str] = []
    start, end = early.start_early, early.give_up_early
    monkeypatch.setattr(early, "start_early", lambda name: (started.append(name), start(name)))
    monkeypatch.setattr(early, "give_up_early", lambda: (started.append("-"), end()))
    made(tmp_path / "b.tar", **options)
    assert started == [*wanted, "-"]


@pytest.mark.parametrize("on", [None, "ssh://nowhere"])
def test_the_command_line_has_it_come_up_before_pytorch(
    tmp_path: Path, release: str, monkeypatch: pytest.MonkeyPatch, on: str | None
) -> None:
    order: list[str] = []
    monkeypatch.setattr(early, "start_early", order.append)
    monkeypatch.setattr(early, "give_up_early", lambda: order.append("-"))

    def build(*_: Any) -> Any:
        order.append("build")
        raise ConfigError("enough", hint="")

    monkeypatch.setattr("trtpack.pipeline.build", build)
    arguments: dict[str, Any] = dict.fromkeys(("weights",))
    arguments |= {"inputs": (), "torch_ops": (), "output": str(tmp_path / "b.tar"), "on": on}
    with pytest.raises(ConfigError, match="enough"):
        run_build(
            "model.py:make",
            verbose=0,
            quiet=True,
            log_file=None,
            targets=("native" if on is None else "orin",),
            **arguments,
        )
    assert order == (["tensorrt", "build", "-"] if on is None else ["build"])


def test_what_is_wrong_with_a_target_is_told_by_the_build(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "start_early", pytest.fail)
    with early.early_start(Options(targets=("no-such-device",))):
        pass
