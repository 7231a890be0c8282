# SPDX-License-Identifier: Apache-2.0
"""Cells in real processes, one of which is killed, and a command that is."""

from __future__ import annotations

import json
import time
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


def cells_under_way(running: Running) -> set[Any]:
    """The processes that build cells, the children of the one that they are forked from; not those
    that have just begun, or are about to end."""
    command, before = psutil.Process(running.process.pid), set[Any]()
    while running.process.poll() is None:
        now = {child for own in command.children() for child in own.children()}
        if now & before:
            return now & before
        before = now
        time.sleep(0.2)
    raise AssertionError("the command ended without another cell")


def test_processes_that_are_killed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    write_matrix(tmp_path, '[targets.cpu]\nbuild = { engine = "reference" }\n')
    try:
        running = build(host)
        running.until("[1/6]")
        for cell in cells_under_way(running):
            cell.kill()
        assert running.process.wait(600) == 0, running.seen
        report = json.loads((tmp_path / "out/report.json").read_bytes())
        assert report["totals"]["built"] == 6
        again = [cell["tries"] for cell in report["cells"]].count(2)
        assert again in (1, 2)
        assert sum("ended by SIGKILL; it is begun again" in line for line in running.seen) == again

        running = build(host)
        running.until("[1/6]")
        children = psutil.Process(running.process.pid).children(recursive=True)
        assert children  # the one that cells are forked from, and those that are there
        running.process.kill()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive
    finally:
        host.end()
