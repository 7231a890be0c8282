# SPDX-License-Identifier: Apache-2.0
"""The timing cache of a build: used, filled, and refused where it does not fit; on doubles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.trt_double import RELEASES, controls, double
from trtpack_runtime.engines import _build
from trtpack_runtime.engines._build import PLAN, TACTICS_IN, TACTICS_OUT, BuildOptions
from trtpack_runtime.engines._log import log_of
from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.network import Network, Tensor
from trtpack_runtime.recorder import Recorder

EDITABLE = ("10.16", "11.1")


def network(op: str = "EXP") -> Network:
    """One layer."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    (y,) = recorder.add("unary", {"input": x}, {"op": op}, name="y")
    return recorder.finish([y.name])


def built(trt: Any, folder: Path, tactics: bytes | None = None, **options: Any) -> dict[str, Any]:
    """Runs the worker's task in this process."""
    folder.mkdir(exist_ok=True)
    (folder / "network.json").write_bytes(network().to_bytes())
    (folder / TACTICS_IN).unlink(missing_ok=True)
    if tactics is not None:
        (folder / TACTICS_IN).write_bytes(tactics)
    job: Mapping[str, Any] = {"weights": [], "options": BuildOptions(**options).to_json()}
    answer = _build.run(trt, job, folder, lambda event: True)
    assert (folder / PLAN).stat().st_size == answer["plan_bytes"]
    return answer


@pytest.mark.parametrize("release", RELEASES)
def test_a_second_build_measures_nothing(release: str, tmp_path: Path) -> None:
    trt = double(release)
    first = built(trt, tmp_path)
    tactics = (tmp_path / TACTICS_OUT).read_bytes()
    measured = controls(trt).measured
    assert measured > 0
    second = built(trt, tmp_path, tactics)
    assert controls(trt).measured == measured
    assert first["entries"] == second["entries"]


@pytest.mark.parametrize("release", RELEASES)
def test_what_an_editable_cache_holds_is_told(release: str, tmp_path: Path) -> None:
    entries = built(double(release), tmp_path)["entries"]
    if release not in EDITABLE:
        assert entries is None
        return
    assert entries
    for entry in entries:
        assert set(entry) == {"key", "tactic", "time_ms"}
        assert int(entry["tactic"], 16) >= 0
        assert entry["tactic"].startswith("0x")
        assert len(entry["tactic"]) == 18


DAMAGED = "is damaged, or of another TensorRT"
FOREIGN = "is of another GPU or another TensorRT"


def foreign(release: str, folder: Path) -> bytes:
    """A cache of the same TensorRT on another GPU."""
    other = double(release)
    controls(other).device = "another GPU"
    built(other, folder / "other")
    return (folder / "other" / TACTICS_OUT).read_bytes()


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("problem", [DAMAGED, FOREIGN])
def test_a_cache_that_does_not_fit_is_left_and_said(
    release: str, problem: str, tmp_path: Path
) -> None:
    trt = double(release)
    built(trt, tmp_path, b"garbage" if problem == DAMAGED else foreign(release, tmp_path))
    assert controls(trt).measured > 0
    log = log_of(trt)
    assert any(
        m.severity == "WARNING" and problem in m.text and m.text.endswith("; measuring anew")
        for m in log.messages
    )
    assert log.errors == [], "a cache that is left is no error of the build"


@pytest.mark.parametrize("release", ["10.3", *EDITABLE])
@pytest.mark.parametrize("problem", [DAMAGED, FOREIGN, "lacks", None])
def test_a_locked_build_takes_nothing_else(
    release: str, problem: str | None, tmp_path: Path
) -> None:
    tactics = {DAMAGED: b"garbage", FOREIGN: foreign(release, tmp_path), "lacks": b"", None: None}
    messages = {"lacks": "Timing cache miss", None: "there is no timing cache for this GPU to lock"}
    with pytest.raises(EngineBuildError, match=messages.get(problem, problem or "")):
        built(double(release), tmp_path, tactics[problem], locked=True)
    assert not (tmp_path / PLAN).exists()


@pytest.mark.parametrize("release", ["10.3", *EDITABLE])
def test_a_locked_build_with_all_tactics_is_like_any_other(release: str, tmp_path: Path) -> None:
    trt = double(release)
    built(trt, tmp_path)
    measured = controls(trt).measured
    built(trt, tmp_path, (tmp_path / TACTICS_OUT).read_bytes(), locked=True)
    assert controls(trt).measured == measured


def test_release_8_cannot_lock(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"8\.6\.2 does not have a locked .*, 10\.0 has"):
        built(double("8.6"), tmp_path, b"", locked=True)


def test_tensorrt_rtx_has_no_timing_cache(tmp_path: Path) -> None:
    trt = double("rtx-1.7")
    assert built(trt, tmp_path)["entries"] is None
    assert not (tmp_path / TACTICS_OUT).exists()
    with pytest.raises(EngineBuildError, match="TensorRT-RTX has no timing cache to lock"):
        built(trt, tmp_path, b"", locked=True)
