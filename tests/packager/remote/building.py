# SPDX-License-Identifier: Apache-2.0
"""Builds of a small bundle on a device of the tests, watched and disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.runtime import deferred
from trtpack.remote.finishing import Finishing, Stores
from trtpack.remote.login import Login
from trtpack.remote.ssh import Ssh
from trtpack.report import Progress, Step
from trtpack_runtime.engine_store import EngineStore
from trtpack_runtime.tactics import TacticStore

from . import devices
from .sshd import Server

VARIANT = "h200"


class Watched(Progress):
    """Keeps every step and what it said; ``on_step`` is told each when it begins, ``on_event`` that
    as well as all that is said, by its number."""

    def __init__(
        self,
        on_step: Callable[[str], None] = lambda name: None,
        on_event: Callable[[int], None] = lambda number: None,
    ) -> None:
        super().__init__()
        self.steps: list[str] = []
        self.said: list[str] = []
        self._on_step, self._on_event = on_step, on_event

    def began(self, step: Step) -> None:
        self.steps.append(step.name)
        self._on_step(step.name)
        self._tell()

    def changed(self, step: Step) -> None:
        self.said.append(step.text)
        self._tell()

    def _tell(self) -> None:
        self._on_event(len(self.steps) + len(self.said) - 1)


@dataclass
class Host:
    """A host with stores of its own, and the bundle that it finishes on a device."""

    server: Server
    folder: Path
    progress: Watched = field(default_factory=Watched)
    lease_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.bundle = deferred.write(self.folder / "bundle.tar", variants=(VARIANT,))
        self.engines = EngineStore(self.folder / "engines")
        self.tactics = TacticStore(self.folder / "tactics")

    def finishing(self) -> Finishing:
        """What finishes the bundle."""
        login = Login.to(self.server.on, self.server.options, timeout_s=self.lease_timeout_s)
        stores = Stores(self.engines, self.tactics)
        return Finishing(login, self.bundle, (VARIANT,), stores, self.folder, self.progress)

    @property
    def built(self) -> list[str]:
        """The segments that were built, in order."""
        return [name.split()[3] for name in self.progress.steps if "engine of" in name]


def with_tensorrt(server: Server, seconds: float = 0.0) -> None:
    """The device is an H200 with TensorRT's double, whose import takes so long."""
    devices.add_gpu(server, "NVIDIA H200", "9.0", 141, 132)
    devices.add_tensorrt(server, "10.3", "10.3.0.30", seconds)


class Knife:
    """Cuts connections: remembers every ``ssh`` that is started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._last: subprocess.Popen[bytes] | None = None
        self._ssh: Ssh | None = None
        start, knife = Ssh.start, self
        self.cuts: list[str] = []

        def started(ssh: Ssh, command: str) -> tuple[subprocess.Popen[bytes], Path]:
            process, said = start(ssh, command)
            knife._last, knife._ssh = process, ssh
            return process, said

        monkeypatch.setattr(Ssh, "start", started)

    def cut(self, how: str) -> None:
        """Kills the client, or the login that all clients share."""
        assert self._last is not None
        assert self._ssh is not None
        self.cuts.append(how)
        if how == "client":
            self._last.kill()
            return
        done = subprocess.run(
            self._ssh._command("-O", "check"), capture_output=True, text=True, check=True
        )
        os.kill(int(done.stderr.partition("pid=")[2].partition(")")[0]), signal.SIGKILL)

    def at(self, event: int, seconds: float, how: str) -> Watched:
        """Cuts so many seconds after that event."""

        def on_event(number: int) -> None:
            if number == event:
                threading.Timer(seconds, self.cut, (how,)).start()

        return Watched(on_event=on_event)
