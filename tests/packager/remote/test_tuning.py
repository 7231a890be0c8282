# SPDX-License-Identifier: Apache-2.0
"""``build --tune --on``: candidates are built for a device, and called on it in turns."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.packager.machines import ORIN, facts
from tests.runtime import deferred
from trtpack import tuning
from trtpack.cli.build import build
from trtpack.errors import CompileError, ConfigError
from trtpack.options import Options
from trtpack.remote import finishing, measuring
from trtpack.remote.device import ConnectionLost
from trtpack.remote.login import Login, take_lease
from trtpack.remote.measuring import RemoteCandidate, Stay, staying
from trtpack.remote.ssh import UnreachableError
from trtpack.report import BuildReport, DeviceReport, EngineReport, Progress, TargetReport
from trtpack.target import find_target
from trtpack.trial_log import open_log
from trtpack.tuning.search import Built, Search
from trtpack.tuning.space import Setting
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.errors import DeviceError, SmokeFailure

from . import devices
from .sshd import Server

SPACE = (Setting("freezing", False, (True,)), Setting("max_autotune", False, (True,)))
CPU = find_target("cpu")
CLEAN = ["home", "tmp"]
MODEL = """
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10)
    return nn.Sequential(*layers).eval(), (torch.randn(1, 3, 16, 16),)
"""
Turn = Callable[[RemoteCandidate, float], Mapping[str, Any]]


@pytest.fixture
def whole(device: Server) -> Server:
    """A device with PyTorch."""
    devices.add_everything(device)
    return device


def options(server: Server, **changes: Any) -> Options:
    given = Options(("cpu",), on=server.on, ssh_options=server.options, lease_timeout_s=0)
    return replace(given, tune=True, trials=3, **changes)


def login(server: Server) -> Login:
    return Login.to(server.on, server.options, timeout_s=0)


@contextlib.contextmanager
def stayed(server: Server, say: Callable[[str], None] = lambda text: None) -> Iterator[Stay]:
    with staying(login(server), CPU, options(server), say) as stay:
        yield stay


@dataclass
class Desk:
    """A host that searches with bundles which need no compiler."""

    folder: Path
    made: list[Mapping[str, Any]] = field(default_factory=list)

    def make(self, settings: Mapping[str, Any], rebuild: int) -> Built:
        self.made.append(settings)
        bundle = deferred.write(self.folder / f"{len(self.made)}.tar", variants=())
        engines = (EngineReport("forward_0", "reference"),)
        target = TargetReport("cpu", "", "reference", "", (), engines=engines)
        report = BuildReport("m", 0, 0, (), (), {}, {}, (target,))
        return Built(bundle, report, str(sorted(settings)), 10, 0.1)

    def search(self, stay: Stay, given: Options) -> dict[str, Any]:
        with open_log(self.log, {"model": "m"}) as log:
            search = Search(self.make, SPACE, given, "cpu", log, lambda text: None, stay)
            return search.run(self.make({}, 0))

    @property
    def log(self) -> Path:
        return self.folder / "trials.jsonl"

    @property
    def logged(self) -> list[dict[str, Any]]:
        """The trials in the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()[1:]]


def tried(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trials but those that build the best one again: which one wins is chance here."""
    return [trial for trial in told["trials"] if not trial["rebuild"]]


def at_turn(monkeypatch: pytest.MonkeyPatch, number: int, do: Callable[[], None]) -> None:
    """Has something done before that turn of all there are."""
    turn: Turn = RemoteCandidate.turn
    turns: list[RemoteCandidate] = []

    def turned(candidate: RemoteCandidate, seconds: float) -> Mapping[str, Any]:
        turns.append(candidate)
        if len(turns) == number:
            do()
        return turn(candidate, seconds)

    monkeypatch.setattr(RemoteCandidate, "turn", turned)


def processes(server: Server, bundle: str = "candidate-") -> list[int]:
    """The processes of candidates on the device, which is this machine."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(str(server.root) in word and bundle in word for word in words):
            found.append(int(place.parent.name))
    return found


def noted(server: Server, folder: Path) -> Desk:
    folder.mkdir(exist_ok=True)
    return Desk(folder)


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


def tuned(server: Server, target: str = "cpu", *more: str) -> Result:
    words = ["m.py:make", "-t", target, *more, "--tune", "--trials", "2", "-o", "b.tar", "--report"]
    # its own builds would not get the device either, did they ask for it
    words += ["r.json", "--on", server.on, "--ssh-option", *server.options, "--lease-timeout", "0"]
    return CliRunner().invoke(build, words, catch_exceptions=False)


def never(*_: object) -> BuildReport:
    pytest.fail("it was built before the device was looked at")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("orin", "device is not what this is built for: orin"),
        ("cpu", "--tune cannot measure on device: its Python"),
    ],
)
def test_a_device_that_cannot_is_refused_before_anything_is_built(
    device: Server, tmp_path: Path, target: str, told: str
) -> None:
    given = options(device, targets=(target,), output=tmp_path / "b.tar")
    with pytest.raises(DeviceError, match=told) as raised:
        tuning.tune(given, never, Progress())
    assert raised.value.hint
    assert not list(tmp_path.glob("b*"))
    assert device.settled() == CLEAN


def test_a_device_that_another_has(device: Server, tmp_path: Path, whole: Server) -> None:
    given = options(device, output=tmp_path / "b.tar")
    with login(device).device() as there:
        take_lease(there, login(device), "builds another", print)
        with pytest.raises(DeviceError, match="has held this device"):
            tuning.tune(given, never, Progress())
        assert device.lease.exists()
    assert device.settled() == CLEAN


@pytest.mark.parametrize(
    ("target", "changes", "told"),
    [
        ("cpu", {"engine": "reference"}, "nothing to tune"),
        ("orin", {"engine": "inductor"}, "on ssh://orin: AOTInductor compiles on the GPU it is"),
    ],
)
def test_what_nobody_builds_is_refused_without_a_login(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    changes: Mapping[str, Any],
    told: str,
) -> None:
    monkeypatch.setattr(tuning, "facts", lambda: facts(gpus=[], problems=[]))
    given = Options((target,), output=tmp_path / "b.tar", on="ssh://orin", tune=True)
    with pytest.raises(ConfigError, match=told):
        tuning.tune(replace(given, **changes), never, Progress())
    assert list(tmp_path.iterdir()) == []


def test_the_log_is_of_the_device_and_not_of_the_way_there() -> None:
    orin = find_target("orin")
    there = facts(gpus=[ORIN], cpu={"model": "Cortex-A78AE", "count": 8})
    same = tuning._machine(there, orin)
    assert same == tuning._machine(dict(there), orin)
    for other in ({"count": 4}, {"model": "another"}):
        changed = {**there, "cpu": {**there["cpu"], **other}}
        assert tuning._machine(changed, orin) != same
    assert tuning._machine({**there, "tensorrt": "10.3.0"}, orin) != same
    given = Options(("orin",), on="ssh://orin")
    other = replace(given, on="ssh://10.0.0.7", ssh_options=("-J gate",), lease_timeout_s=1.0)
    assert tuning._plain(given) == tuning._plain(other)
    assert tuning._plain(given) != tuning._plain(replace(given, cool_below_c=50.0))


def test_space_and_log_are_those_of_the_devices_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kept(Stay):
        facts = facts(gpus=[], cpu={"model": "Cortex-A78AE", "count": 12})

    @contextlib.contextmanager
    def staying(*_: object) -> Iterator[Stay]:
        yield Kept(Far(), 65.0, print)  # type: ignore[arg-type]  # a double

    def run(search: Search, usual: Built) -> dict[str, Any]:
        searches.append(search)
        raise ConfigError("enough")

    def built(given: Options, *_: object) -> BuildReport:
        deferred.write(given.output, variants=())
        return BuildReport("m", 0, 0, (), (), {}, {}, ())

    searches: list[Search] = []
    monkeypatch.setattr(tuning, "facts", lambda: facts(gpus=[], cpu={"model": "x", "count": 4}))
    monkeypatch.setattr(tuning, "cannot_build_here", lambda *_, **__: None)
    monkeypatch.setattr(tuning, "staying", staying)
    monkeypatch.setattr(Search, "run", run)
    given = Options(("cpu",), output=tmp_path / "b.tar", on="ssh://orin", tune=True)
    with pytest.raises(ConfigError, match="enough"):
        tuning.tune(given, built, Progress())
    (search,) = searches
    (threads,) = [setting.others for setting in search.space if setting.name == "threads"]
    assert threads == (6, 3, 1)
    head = json.loads(search.log.path.read_text().splitlines()[0])
    assert head["of"]["machine"] == tuning._machine(Kept.facts, CPU)


class Far:
    """A device that answers so."""

    address = "orin"

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    def ask(self, task: str, on_report: Any = None, **values: Any) -> dict[str, Any]:
        if task == "cool":
            on_report({"hot": 80.0}, b"")
        answer: dict[str, Any] = self._answers[task]
        return answer


def test_heat_is_waited_for_and_told() -> None:
    said: list[str] = []
    hot = Far(cool={"waited_s": 300.0, "temperature_c": 80.0, "cool": False})
    stay = Stay(hot, 65.0, said.append)  # type: ignore[arg-type]  # a double
    stay.settle()
    stay.settle()
    report = stay.told(DeviceReport("orin", {}, {}, {}, cooled_s=1.0, notes=("a note",)))
    assert said == ["it cools down, 80 °C"] * 2
    assert report.cooled_s == 601.0
    assert report.notes == (
        "a note",
        "orin did not cool down in 300 s, it has 80 °C: candidates were measured hot",
    )
    cool = Far(cool={"waited_s": 2.0, "temperature_c": 60.0, "cool": True})
    stay = Stay(cool, 65.0, said.append)  # type: ignore[arg-type]  # a double
    stay.settle()
    assert (stay.cooled_s, stay.notes) == (2.0, [])


class Still:
    """A candidate's process that takes so long for a call."""

    is_alive = True

    def __init__(self, ms: float = 1.0) -> None:
        self._ms = ms

    def wait_ready(self) -> dict[str, Any]:
        return {"memory_bytes": 1, "device": "cuda:0"}

    def turn(self, seconds: float) -> dict[str, Any]:
        return {"ms": self._ms, "per_second": 1e3 / self._ms}

    def close(self) -> None:
        pass


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
    done = tuned(device, "h200", "--min-block-size", "1")
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


@pytest.mark.parametrize(
    ("errors", "raised", "attempts"),
    [
        ([ConnectionLost("gone"), UnreachableError("no"), UnreachableError("no")], None, 4),
        ([UnreachableError("no")], UnreachableError, 1),
        ([ConnectionLost("gone")] * 9, ConnectionLost, finishing.ATTEMPTS),
    ],
)
def test_a_device_that_is_away_for_a_while(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    errors: list[Exception],
    raised: type[Exception] | None,
    attempts: int,
) -> None:
    """It is looked for again; one that never was there is told at once, one that does not come
    back after a while."""
    monkeypatch.setattr(finishing, "_PAUSE_S", (0.0,))
    monkeypatch.setattr(tuning, "facts", lambda: facts(gpus=[ORIN]))
    left, tried = [*errors], list[None]()

    def once(run: Any) -> BuildReport:
        tried.append(None)
        if left:
            raise left.pop(0)
        return BuildReport("m", 0, 0, (), (), {}, {}, ())

    monkeypatch.setattr(tuning._Tuning, "_once", once)
    given = Options(("cpu",), output=tmp_path / "b.tar", on="ssh://orin", tune=True)
    expected = contextlib.nullcontext() if raised is None else pytest.raises(raised)
    with expected:
        tuning.tune(given, never, Progress())
    assert len(tried) == attempts


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
