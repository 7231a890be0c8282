# SPDX-License-Identifier: Apache-2.0
"""Candidates that are called in turns, each in a process of its own, here or on a device."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from trtpack_runtime.candidate_process import CandidateProcess

BLOCK_S = 0.1
"""A candidate's turn takes about so long, and some calls at least."""

Say = Callable[[str], None]
"""Told in a clause what is going on."""


class Process(Protocol):
    """A candidate's process, wherever it is; see ``CandidateProcess``."""

    def wait_ready(self) -> Mapping[str, Any]:
        """Waits until it is loaded."""

    def turn(self, seconds: float) -> Mapping[str, Any]:
        """Has it called for so long."""

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""

    def close(self) -> None:
        """Ends it."""


class Where(Protocol):
    """The machine that candidates are measured on."""

    def start(self, bundle: Path, target: str) -> Process:
        """Starts the process of a candidate."""

    def settle(self) -> None:
        """Waits until the machine is fit to be measured on."""


class Here:
    """This machine."""

    def start(self, bundle: Path, target: str) -> Process:
        """Starts the process of a candidate, with this one's path."""
        path = os.pathsep.join(str(Path(p).absolute()) for p in sys.path if p)
        return CandidateProcess(bundle, target, path)

    def settle(self) -> None:
        """Nothing is known that would be worth to wait for."""


HERE = Here()


class Candidate:
    """A bundle that is loaded and waits for its turn; it ends with the block.

    ``memory_bytes`` is what it takes beside PyTorch, of the GPU's memory where one runs it.

    Raises:
        CompileError: it does not load, or a call fails.
        ConnectionLost: the device it is on is gone.
    """

    def __init__(self, bundle: Path, target: str, where: Where = HERE) -> None:
        self._process = where.start(bundle, target)
        self.ms: list[float] = []
        self.per_second: list[float] = []
        try:
            ready = self._process.wait_ready()
        except BaseException:
            self.close()
            raise
        self.memory_bytes = int(ready["memory_bytes"])
        self.device = str(ready["device"])

    def turn(self, seconds: float = BLOCK_S) -> float:
        """Its time for a call in milliseconds, as the median of this turn's calls."""
        answer = self._process.turn(seconds)
        self.ms.append(answer["ms"])
        self.per_second.append(answer["per_second"])
        return self.ms[-1]

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process.is_alive

    def close(self) -> None:
        """Ends the process."""
        self._process.close()

    def __enter__(self) -> Candidate:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Turns:
    """Rounds in which each of several candidates has a turn, whose order changes each time."""

    def __init__(self, candidates: Sequence[Candidate], by: str = "ms") -> None:
        self._candidates, self._by, self._rounds = tuple(candidates), by, 0

    def round(self) -> tuple[float, ...]:
        """What each one's call took in this round, smaller is better."""
        count = len(self._candidates)
        taken = [0.0] * count
        for place in range(count):
            index = (place + self._rounds) % count
            candidate = self._candidates[index]
            candidate.turn()
            rate = self._by == "per_second"
            taken[index] = 1e3 / candidate.per_second[-1] if rate else candidate.ms[-1]
        self._rounds += 1
        return tuple(taken)
