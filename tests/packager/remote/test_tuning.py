# SPDX-License-Identifier: Apache-2.0
"""``build --tune --on``: candidates are built for a device, and called on it in turns."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from trtpack.errors import CompileError
from trtpack.options import Options
from trtpack.remote import finishing, measuring
from trtpack.remote.device import ConnectionLost
from trtpack.remote.login import take_lease
from trtpack.remote.measuring import RemoteCandidate, Stay
from trtpack.tuning.search import Built
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.errors import DeviceError, SmokeFailure

from . import devices
from .searching import (
    CLEAN,
    MODEL,
    Desk,
    Still,
    at_turn,
    login,
    noted,
    options,
    processes,
    stayed,
    tried,
    tuned,
)
from .sshd import Server


@pytest.mark.slow
def test_candidates_are_called_there_and_nothing_stays(whole: Server, tmp_path: Path) -> None:
    desk = noted(whole, tmp_path / "desk")
    sizes: list[list[str]] = []
    said: list[str] = []
    with stayed(whole, said.append) as stay:
        told = desk.search(stay, options(whole))
        sizes.append([name for name in whole.left() if "candidate-" in name])
        with (
            pytest.raises(DeviceError, match="has held this device"),
            login(whole).device() as other,
        ):
            take_lease(other, login(whole), "tunes another", said.append)
    assert told["trials"][0]["state"] == "usual"
    assert len(tried(told)) == 3
    assert all(trial["latency_ms"] > 0 for trial in tried(told))
    assert told["device"] == "cpu"
    assert desk.logged == told["trials"]
    assert any(text.startswith("send ") and text.endswith("100 %") for text in said)
    assert said[-1].startswith("waiting for ")
    assert ", which tunes for cpu for " in said[-1]
    assert whole.settled() == CLEAN
    assert processes(whole) == []


@pytest.mark.slow
def test_a_candidate_that_dies_fails_its_trial(
    whole: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = noted(whole, tmp_path / "desk")

    def kill() -> None:
        (process,) = processes(whole, "candidate-1.tar")
        os.kill(process, signal.SIGKILL)

    at_turn(monkeypatch, 3 + 2, kill)  # the usual ones' first three, then two of the first round
    with stayed(whole) as stay:
        told = desk.search(stay, options(whole))
    states = [(trial["state"], trial["why"]) for trial in tried(told)]
    assert states[1] == ("failed", "device: the process that measures it died with signal 9")
    assert len(states) == 3
    assert states[2][0] != "failed"
    assert whole.settled() == CLEAN


@pytest.mark.slow
def test_where_the_usual_one_dies_no_trial_is_blamed(
    whole: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = noted(whole, tmp_path / "desk")

    def kill() -> None:
        (process,) = processes(whole, "candidate-0.tar")
        os.kill(process, signal.SIGKILL)

    at_turn(monkeypatch, 3 + 1, kill)
    with (
        pytest.raises(CompileError, match="died with signal 9"),
        stayed(whole) as stay,
    ):
        desk.search(stay, options(whole))
    assert [trial["state"] for trial in desk.logged] == ["usual"]
    assert whole.settled() == CLEAN


@pytest.mark.slow
def test_a_bundle_that_does_not_load_there(whole: Server, tmp_path: Path) -> None:
    bundle = tmp_path / "b.tar"
    bundle.write_bytes(b"no bundle")
    with stayed(whole) as stay:
        process = stay.start(bundle, "cpu")
        with pytest.raises(CompileError, match="device: it does not run: "):
            process.wait_ready()
        assert not process.is_alive
        assert [name for name in whole.left() if "candidate-" in name] == []
        process.close()  # again does nothing
        assert stay.has_lease()
    assert not stay.has_lease()


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, ConnectionLost])
def test_what_ends_it_in_a_measurement_leaves_nothing(
    whole: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    """Ctrl-C, and a connection that is cut: the log is kept, nobody is blamed."""
    desk = noted(whole, tmp_path / "desk")

    def searched() -> None:
        with stayed(whole) as stay:

            def end() -> None:
                if error is KeyboardInterrupt:
                    raise KeyboardInterrupt
                stay._device._process.kill()

            at_turn(monkeypatch, 3 + 2, end)
            desk.search(stay, options(whole))

    with pytest.raises(error) as raised:
        searched()
    if error is ConnectionLost:
        assert "the connection to device was lost" in str(raised.value)
        assert "run it again" in raised.value.hint  # type: ignore[attr-defined]  # a TrtpackError
    assert [trial["state"] for trial in desk.logged] == ["usual"]
    assert whole.settled() == CLEAN  # the lease too
    assert processes(whole) == []


@pytest.mark.slow
def test_there_and_back_cut_off_in_between(
    whole: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself: it loses its device while it measures, and goes on by the log: called
    again, and by itself."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text(MODEL)
    stays: list[Stay] = []
    start = Stay.start

    def started(stay: Stay, bundle: Path, target: str) -> RemoteCandidate:
        stays.append(stay)
        return start(stay, bundle, target)

    monkeypatch.setattr(Stay, "start", started)
    monkeypatch.setattr(finishing, "_PAUSE_S", (0.0,))
    with monkeypatch.context() as once:
        once.setattr(finishing, "ATTEMPTS", 1)
        at_turn(once, 3 + 2, lambda: stays[-1]._device._process.kill())
        with pytest.raises(ConnectionLost, match="the connection to device was lost"):
            tuned(whole)
    log = Path("b.tune/trials.jsonl")
    before = log.read_bytes().splitlines()
    assert len(before) == 2  # what it is of, the usual
    assert not Path("b.tar").exists()
    assert whole.settled() == CLEAN
    assert {path.name for path in log.parent.iterdir()} == {"trials.jsonl"}

    at_turn(monkeypatch, 2, lambda: stays[-1]._device._process.kill())  # now it may try again
    done = tuned(whole)
    assert done.exit_code == 0, done.output
    assert "Tuning for latency on cpu: 2 trials, as was asked, 1 of them before" in done.output
    assert "smoke test, cpu  passed: on cpu, " in done.output
    report = json.loads(Path("r.json").read_text())
    settings = [trial["settings"] for trial in tried(report["tuning"])]
    assert settings == [{}, {"freezing": True}]
    assert report["tuning"]["resumed"] == 1
    assert (report["on"]["address"], report["on"]["lost"]) == ("device", 1)
    assert len({id(stay) for stay in stays}) == 3
    assert report["bundle"]["path"] == "b.tar"
    assert log.read_bytes().splitlines()[:2] == before
    open_bundle(Path("b.tar")).verify()
    assert whole.settled() == CLEAN
    assert {path.name for path in log.parent.iterdir()} == {"trials.jsonl"}


@pytest.mark.slow
def test_engines_of_candidates_are_built_there_under_the_one_lease(
    device: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TensorRT's double, whose engines nobody can call: the first candidate is slower."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text(MODEL)
    devices.add_gpu(device, "NVIDIA H200", "9.0", 141, 132)
    devices.add_tensorrt(device, "10.16", "10.16.1.11")
    measured: list[Mapping[str, Any]] = []

    def started(stay: Stay, bundle: Path, target: str) -> Still:
        assert device.lease.exists()
        (ref,) = open_bundle(bundle).manifest.variants[target].engines.values()
        assert ref.member is not None
        measured.append(ref.record or {})
        return Still(1.0 if len(measured) == 1 else 0.5)

    monkeypatch.setattr(Stay, "start", started)
    monkeypatch.setattr(measuring, "cannot_smoke", lambda hello: None)
    done = tuned(device, "h200", "--min-block-size", "1", "--cuda-graphs")
    assert done.exit_code == 0, done.output
    report = json.loads(Path("r.json").read_text())
    trials = report["tuning"]["trials"]
    assert trials[0]["settings"] == {}
    assert trials[1]["settings"] == {"optimization_level": 4}
    assert [(trial["rebuild"], trial["state"]) for trial in trials[:2]] == [
        (0, "usual"),
        (0, "best"),
    ]
    assert [trial["rebuild"] for trial in trials[2:]] == [1, 2]  # whose tactics were measured anew
    assert {record["device"] for record in measured} == {"NVIDIA H200"}
    assert report["tuning"]["flags"] == "--optimization-level 4"
    assert report["on"]["facts"]["gpus"][0]["name"] == "NVIDIA H200"
    bundle = open_bundle(Path("b.tar"))
    bundle.verify()
    assert "engines/h200/forward_0.plan" in bundle.entries


def test_a_candidate_that_fails_its_smoke_test_there_fails_its_trial(tmp_path: Path) -> None:
    class Quiet:
        def start(self, bundle: Path, target: str) -> Still:
            return Still()

        def settle(self) -> None:
            pass

    class Failing(Desk):
        def make(self, settings: Mapping[str, Any], rebuild: int) -> Built:
            if settings:
                raise SmokeFailure("orin on device: y is off", hint="")
            return super().make(settings, rebuild)

    given = Options(("cpu",), tune=True, trials=2)
    told = Failing(tmp_path).search(Quiet(), given)  # type: ignore[arg-type]  # a double
    assert [trial["state"] for trial in told["trials"]] == ["usual", "failed"]
    assert told["trials"][1]["why"] == "orin on device: y is off"
