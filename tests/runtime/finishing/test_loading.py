# SPDX-License-Identifier: Apache-2.0
"""A device builds what its bundle leaves to it, once, when the bundle is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import deferred
from tests.runtime.finishing.builds import Builds, loaded
from trtpack_runtime import load, placement
from trtpack_runtime.bundle import Bundle
from trtpack_runtime.engines import LoadContext, tensorrt
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.errors import BundleError, EngineBuildError
from trtpack_runtime.loading import DegradedWarning
from trtpack_runtime.progress import Progress

X = torch.linspace(-2, 8, 12).reshape(3, 4)


def test_the_first_load_builds_and_the_second_does_not(
    bundle: Bundle, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    told: list[Progress] = []
    first = loaded(bundle.path, on_progress=told.append)
    assert builds.names == ["forward_0", "forward_1"]
    assert (first.variant, first.degraded) == ("h200", False)
    assert first.smoke().passed
    assert {s.kind for s in first.segments()} == {"tensorrt"}
    assert not any(engine.cached for engine in first.own_engines.values())
    texts = [progress.text() for progress in told]
    assert any(t.startswith("building forward_1 (2 of 2): building 50 %, ") for t in texts)
    second = loaded(bundle.path)
    assert builds.names == ["forward_0", "forward_1"]
    assert second.choice.chosen.verdict.reason.startswith("from the store, built ")
    torch.testing.assert_close(second(X), first(X))


def test_engines_built_here_may_run_host_code_and_have_the_weights(
    tmp_path: Path, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    options = {"options": {"version_compatible": True, "weights": "stripped"}}
    path = deferred.write(tmp_path / "b.tar", variants=("h200",), engines=options)
    loaded(path)
    context = on_h200["forward_0"]
    assert context.trust
    assert context.record["options"]["version_compatible"]
    assert set(context.weights) == {"w0", "w1", "unused"}


def test_no_build_runs_in_pytorch(
    bundle: Bundle, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    assert loaded(bundle.path, build=False).variant == "cpu"
    with pytest.warns(DegradedWarning, match="building is switched off"):
        found = load(bundle.path, target="h200", build=False)
    assert found.degraded
    assert builds.names == []
    loaded(bundle.path)
    assert loaded(bundle.path, build=False).variant == "h200"


def test_a_failing_build_leaves_that_segment_to_pytorch(
    bundle: Bundle, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    builds.fail["forward_1"] = EngineBuildError("forward_1: no tactic", hint="x")
    with pytest.warns(DegradedWarning, match="forward_1 runs in PyTorch.*no tactic"):
        found = load(bundle.path)
    assert found.degraded
    assert [s.kind for s in found.segments()] == ["tensorrt", "reference"]
    assert found.failed_engines == {"forward_1": "forward_1: no tactic"}
    assert found.smoke().passed
    with pytest.raises(EngineBuildError, match="no tactic"):
        load(bundle.path, strict=True)
    assert builds.names == ["forward_0", "forward_1", "forward_1"]


def test_rebuild_builds_anew(
    bundle: Bundle, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    loaded(bundle.path)
    again = loaded(bundle.path, rebuild=True)
    assert builds.names == ["forward_0", "forward_1"] * 2
    assert not any(engine.cached for engine in again.own_engines.values())


def test_a_bundle_cannot_put_another_content_into_the_store(
    tmp_path: Path, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    lie = {"content": "a" * 64}
    path = deferred.write(tmp_path / "b.tar", variants=("h200",), engines=lie)
    with pytest.raises(BundleError, match="is said to compute aaaaaaaaaaaa") as caught:
        load(path)
    assert caught.value.wants == "a" * 64
    assert builds.names == []


def test_other_weights_are_another_engine(
    tmp_path: Path, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    loaded(deferred.write(tmp_path / "one.tar", variants=("h200",)))
    loaded(deferred.write(tmp_path / "two.tar", variants=("h200",), scale=2.0))
    loaded(deferred.write(tmp_path / "three.tar", variants=("h200",)))
    assert len(builds.names) == 4


def test_options_that_are_absent_are_those_by_default(
    tmp_path: Path, builds: Builds, on_h200: dict[str, LoadContext]
) -> None:
    whole = {"options": BuildOptions().to_json()}
    loaded(deferred.write(tmp_path / "one.tar", variants=("h200",)))
    loaded(deferred.write(tmp_path / "two.tar", variants=("h200",), engines=whole))
    assert len(builds.names) == 2
    other = {"options": {"optimization_level": 5}}
    loaded(deferred.write(tmp_path / "three.tar", variants=("h200",), engines=other))
    assert len(builds.names) == 4


@pytest.mark.parametrize(
    "engine", [{"options": {"flags": 3}}, {"record": {"options": 3}}], ids=["own", "record"]
)
def test_options_that_are_none_are_refused(
    tmp_path: Path, builds: Builds, on_h200: dict[str, LoadContext], engine: dict[str, Any]
) -> None:
    path = deferred.write(tmp_path / "one.tar", variants=("h200",), engines=engine)
    with pytest.raises(BundleError, match="malformed build options of forward_0"):
        load(path)


def test_weights_that_only_engines_read_stay_on_the_host(
    bundle: Bundle,
    builds: Builds,
    on_h200: dict[str, LoadContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement, "GPU", "meta")
    monkeypatch.setattr(tensorrt, "load", lambda blob, context: lambda inputs: list(inputs))
    builds.fail["forward_1"] = EngineBuildError("no tactic")
    with pytest.warns(DegradedWarning):
        found = load(bundle.path)
    where = {name: value.device.type for name, value in found.state_dict().items()}
    assert where == {"w0": "cpu", "w1": "meta", "unused": "cpu"}
