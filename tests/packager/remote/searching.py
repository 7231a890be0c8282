# SPDX-License-Identifier: Apache-2.0
"""What the tests of tuning on a device share: a host that searches, and what it asks for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.runtime import deferred
from trtpack.cli.build import build
from trtpack.options import Options
from trtpack.remote.login import Login
from trtpack.remote.measuring import RemoteCandidate, Stay, staying
from trtpack.report import BuildReport, EngineReport, TargetReport
from trtpack.target import find_target
from trtpack.trial_log import open_log
from trtpack.tuning.search import Built, Search
from trtpack.tuning.space import Setting

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


def tuned(server: Server, target: str = "cpu", *more: str) -> Result:
    words = ["m.py:make", "-t", target, *more, "--tune", "--trials", "2", "-o", "b.tar", "--report"]
    # its own builds would not get the device either, did they ask for it
    words += ["r.json", "--on", server.on, "--ssh-option", *server.options, "--lease-timeout", "0"]
    return CliRunner().invoke(build, words, catch_exceptions=False)


def never(*_: object) -> BuildReport:
    pytest.fail("it was built before the device was looked at")


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
