# SPDX-License-Identifier: Apache-2.0
"""A farm in processes of its own, as ``trtpack farm`` starts it, and small models to build."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

COMMAND = (sys.executable, "-m", "trtpack_runtime")
_PATIENCE_S = 60.0

MODELS = '''\
"""Small models: each has an engine that TensorRT-RTX builds within a second or two."""

import torch
from torch import nn


def mlp():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)), (torch.randn(2, 16),)


def conv():
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)
    return nn.Sequential(*layers), (torch.randn(1, 3, 16, 16),)


def normed():
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.AvgPool2d(2)
    return nn.Sequential(*layers), (torch.randn(1, 3, 16, 16),)


def gelu():
    return nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 4)), (torch.randn(3, 16),)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.Tanh())

    def forward(self, x):
        return x + self.inner(x)


def residual():
    return nn.Sequential(Residual(), Residual()), (torch.randn(2, 5, 16),)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(torch.softmax(q @ k.transpose(-1, -2) / 4.0, dim=-1) @ v)


def attention():
    return Attention(), (torch.randn(1, 6, 16),)
'''
NAMES = ("mlp", "conv", "normed", "gelu", "residual", "attention")


def write_matrix(folder: Path, targets: str, models: Iterable[str] = NAMES, more: str = "") -> Path:
    """``matrix.toml`` and ``models.py`` in ``folder``; ``targets`` is TOML, as ``more``."""
    (folder / "models.py").write_text(MODELS, encoding="utf-8")
    rows = "".join(f'[models.{name}]\nmodel = "models.py:{name}"\n' for name in models)
    path = folder / "matrix.toml"
    path.write_text(f"{rows}{targets}{more}", encoding="utf-8")
    return path


@dataclass
class Running:
    """A command that runs; its lines on standard error as they come."""

    process: subprocess.Popen[str]
    lines: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def until(self, part: str, patience_s: float = _PATIENCE_S) -> str:
        """The next line that has ``part`` in it."""
        end = time.monotonic() + patience_s
        while True:
            line = self.lines.get(timeout=max(0.1, end - time.monotonic()))
            assert line is not None, f"ended without {part!r}: {self.seen}"
            if part in line:
                return line

    def end(self) -> None:
        """Ends it as a service manager does, and by force where that is not enough."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.seen.append(line)
            self.lines.put(line)
        self.lines.put(None)


class Farm:
    """A scheduler and workers ``w1``, ``w2``, ..., each with a cache of its own."""

    def __init__(self, folder: Path, protocol: str = "tcp") -> None:
        self._folder = folder
        self._all: list[Running] = []
        self.workers: dict[str, Running] = {}
        self.scheduler = self.run(
            *("farm", "scheduler", "--listen", f"{protocol}://127.0.0.1:0"),
            *("--dashboard", "127.0.0.1:0"),
        )
        self.address = self.scheduler.until("scheduler at ").split()[-1]
        self.dashboard = self.scheduler.until("dashboard at ").split()[-1]

    def run(self, *words: str, cache: str = "host", cwd: Path | None = None) -> Running:
        """Starts ``trtpack`` with those words; ``cache`` names where it keeps engines."""
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(self._folder / cache),
            "XDG_STATE_HOME": str(self._folder / cache),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        running = Running(
            subprocess.Popen(
                [*COMMAND, *words],
                cwd=cwd or self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        self._all.append(running)
        return running

    def add(self, name: str, *words: str) -> Running:
        """Starts a worker and waits until it serves."""
        self.workers[name] = self.run(
            "farm", "worker", self.address, "--name", name, *words, cache=name
        )
        self.workers[name].until("serves")
        return self.workers[name]

    def end(self) -> None:
        """Ends all that was started, the last first."""
        for running in reversed(self._all):
            running.end()
