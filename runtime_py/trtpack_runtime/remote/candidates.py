# SPDX-License-Identifier: Apache-2.0
"""Candidates of a tuning on the device: each loaded once, and called when the host says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..candidate_process import CandidateProcess
from ..errors import CompileError
from .place import Place


class Candidates:
    """The candidates of one connection, by the names of their bundles in the folder of ``place``.

    Args:
        place: the folder.
        paths: the wheels that they need on their path.
    """

    def __init__(self, place: Place, paths: Sequence[str]) -> None:
        self._place, self._paths = place, tuple(paths)
        self._started: dict[str, CandidateProcess] = {}
        self._over = False

    def start(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Loads a bundle's variant and answers what memory that takes, and where it runs.

        Raises:
            CompileError: it does not load; nothing of it is left then, nor is its file.
        """
        name = request["bundle"]
        path = os.pathsep.join([*self._paths, *filter(None, [os.environ.get("PYTHONPATH")])])
        bundle = self._place.path(name)
        # the host that asks has built what is in it
        process = CandidateProcess(bundle, request["variant"], path, trust=True, own_session=True)
        self._started[name] = process
        if self._over:
            self.kill()
        try:
            return process.wait_ready()
        except CompileError:
            self.drop(request)
            raise

    def turn(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A candidate's turn: ``ms`` of a call, and calls ``per_second``.

        Raises:
            CompileError: a call failed, or its process has died.
        """
        return self._started[request["bundle"]].turn(request["seconds"])

    def alive(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Whether a candidate's process runs, as ``alive``."""
        process = self._started.get(request["bundle"])
        return {"alive": process is not None and process.is_alive}

    def drop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Ends a candidate and removes its bundle; again does nothing."""
        name = request["bundle"]
        if (process := self._started.pop(name, None)) is not None:
            process.close()
        self._place.path(name).unlink(missing_ok=True)
        return {}

    def kill(self) -> None:
        """Ends them all at once; one that is being started too."""
        self._over = True
        for process in tuple(self._started.values()):
            process.kill()
