# SPDX-License-Identifier: Apache-2.0
"""Cells in real processes, one of which is killed, and a command that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .cluster import Farm, Running, write_matrix

psutil = pytest.importorskip("psutil")  # it comes with Dask
pytestmark = pytest.mark.slow


class Host(Farm):
    """A farm without scheduler and workers: one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._all = folder, []


def build(host: Host) -> Running:
    return host.run("build", "--matrix", "matrix.toml", "-o", "out", "--jobs", "2")


def cell_processes(running: Running) -> list[Any]:
    """Those that build cells: the children of the one that they are forked from."""
    command = psutil.Process(running.process.pid)
    return [child for own in command.children() for child in own.children()]


def test_processes_that_are_killed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    write_matrix(tmp_path, '[targets.cpu]\nbuild = { engine = "reference" }\n')
    try:
        running = build(host)
        running.until("[1/6]")
        cell_processes(running)[-1].kill()
        assert running.process.wait(600) == 0, running.seen
        report = json.loads((tmp_path / "out/report.json").read_bytes())
        assert report["totals"]["built"] == 6
        assert [cell["tries"] for cell in report["cells"]].count(2) == 1
        assert sum("ended by SIGKILL; it is begun again" in line for line in running.seen) == 1

        running = build(host)
        running.until("[1/6]")
        children = psutil.Process(running.process.pid).children(recursive=True)
        assert len(children) >= 3
        running.process.kill()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive
    finally:
        host.end()
