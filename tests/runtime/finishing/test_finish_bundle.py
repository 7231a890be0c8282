# SPDX-License-Identifier: Apache-2.0
"""``trtpack finish``: a bundle with the engines that a device has built for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.runtime import deferred
from tests.runtime.finishing.builds import Builds, finished, loaded
from trtpack_runtime import load
from trtpack_runtime.bundle import Bundle, open_bundle
from trtpack_runtime.engines import LoadContext, engine
from trtpack_runtime.errors import ConfigError, DeviceError
from trtpack_runtime.finish import Workshop, finish_segment
from trtpack_runtime.ledger import trusted
from trtpack_runtime.loading import DegradedWarning


def test_a_finished_bundle_is_used_directly(
    bundle: Bundle,
    builds: Builds,
    on_h200: dict[str, LoadContext],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = finished(bundle, tmp_path / "finished.tar", deferred.h200())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another device"))
    used = loaded(found.bundle.path)
    assert (used.variant, used.own_engines) == ("h200", {})
    assert used.choice.chosen.verdict.fit == "exact"
    assert builds.names == ["forward_0", "forward_1"]
    assert used.smoke().passed
    found.bundle.verify()
    for name, entry in bundle.entries.items():
        assert found.bundle.entries[name] == entry


def test_a_bundle_is_finished_in_its_place(bundle: Bundle, builds: Builds) -> None:
    found = finished(bundle, bundle.path, deferred.h200())
    refs = open_bundle(bundle.path, verify="full").manifest.variants["h200"].engines
    assert {ref.member for ref in refs.values()} == {
        f"engines/h200/{name}.plan" for name in deferred.SEGMENTS
    }
    assert all(ref.deferred is None for ref in refs.values())
    again = finished(found.bundle, bundle.path, deferred.h200())
    assert (again.engines, again.ready) == ({}, ("cpu", "h200"))
    assert again.bundle.digest == found.bundle.digest


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tensorrt": None}, "h200: TensorRT is not installed"),
        ({"gpus": []}, "h200: there is no NVIDIA GPU"),
        (
            {"gpus": [{"name": "NVIDIA L4", "sm": "8.9"}]},
            r"h200: NVIDIA L4 is SM 8\.9, not 9\.0",
        ),
        ({"tensorrt": "8.6.0"}, r"h200: this machine has TensorRT 8\.6\.0, not 10\.3"),
    ],
)
def test_nothing_can_be_built_here(
    bundle: Bundle, builds: Builds, tmp_path: Path, changes: Mapping[str, Any], reason: str
) -> None:
    with pytest.raises(DeviceError, match=reason):
        finished(bundle, tmp_path / "out.tar", deferred.h200(**changes))
    assert not (tmp_path / "out.tar").exists()
    assert builds.names == []


def test_a_place_that_cannot_be_written_is_told_before_the_build(
    bundle: Bundle, builds: Builds, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        finished(bundle, tmp_path / "none" / "out.tar", deferred.h200())
    with pytest.raises(ConfigError, match="it is a folder"):
        finished(bundle, tmp_path, deferred.h200())
    with pytest.raises(ConfigError, match="no variant 'h20'"):
        finished(bundle, tmp_path / "out.tar", deferred.h200(), target="h20")
    assert builds.names == []


def test_a_version_compatible_plan_of_another_machine_needs_trust(
    tmp_path: Path,
    builds: Builds,
    on_h200: dict[str, LoadContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"options": {"version_compatible": True}}
    path = deferred.write(tmp_path / "b.tar", variants=("h200",), engines=options)
    found = finished(open_bundle(path), tmp_path / "finished.tar", deferred.h200())
    plan = found.bundle.entries["engines/h200/forward_0.plan"]
    assert trusted(plan.sha256)
    assert loaded(found.bundle.path).own_engines == {}
    assert on_h200["forward_0"].trust
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another machine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    with pytest.warns(DegradedWarning, match="--trust loads it"):
        assert load(found.bundle.path, target="h200", build=False).degraded
    own = loaded(found.bundle.path)
    assert set(own.own_engines) == set(deferred.SEGMENTS)  # built anew rather than trusted
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    assert loaded(found.bundle.path, trust=True).own_engines == {}


@pytest.fixture
def rtx(tmp_path: Path) -> Path:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    return deferred.write(tmp_path / "rtx.tar")


def command(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "trtpack_runtime", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_build_once_and_finish_alike(rtx: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "one.tar", tmp_path / "two.tar"]
    started = [command("finish", rtx, "-o", output, "--json") for output in outputs]
    ended = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    answers = [json.loads(out) for out, _ in ended]
    for i in range(2):
        sources = sorted(answer["engines"]["ada"][i]["source"] for answer in answers)
        assert sources == ["built", "store"]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    bundle = open_bundle(outputs[0], verify="full")
    ref = bundle.manifest.variants["ada"].engines["forward_0"]
    assert ref.member == "engines/ada/forward_0.plan"
    assert len(bundle.member(ref.member)) > 1000
    here = deferred.ada()
    verdict = engine("tensorrt-rtx").check(ref.record, here)
    assert verdict.fit == "exact"
    assert verdict.reason.endswith("for SM89")


def test_the_weights_are_read_out_of_the_bundle(rtx: Path, tmp_path: Path) -> None:
    plans = []
    for scale in (1.0, 3.0):
        path = deferred.write(tmp_path / f"{scale}.tar", scale=scale)
        shop = Workshop(deferred.ada(), tmp_path)
        found = finish_segment(open_bundle(path), "ada", "forward_0", shop)
        plans.append(found.path.read_bytes())
        value = (deferred.weights()["w0"] * scale).numpy().tobytes()
        assert value in plans[-1] or len(plans[-1]) > 1000
    assert plans[0] != plans[1]
