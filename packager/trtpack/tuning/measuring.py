# SPDX-License-Identifier: Apache-2.0
"""Candidates that are called in turns, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import CompileError

BLOCK_S = 0.1
"""A candidate's turn takes about so long, and some calls at least."""


class Candidate:
    """A bundle that is loaded and waits for its turn; it ends with the block.

    ``memory_bytes`` is what it takes beside PyTorch, of the GPU's memory where one runs it.

    Raises:
        CompileError: it does not load, or a call fails.
    """

    def __init__(self, bundle: Path, target: str) -> None:
        paths = [str(Path(p).absolute()) for p in sys.path if p]
        self._child = subprocess.Popen(
            [sys.executable, "-m", "trtpack.tuning.child", str(bundle.absolute()), target],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.ms: list[float] = []
        self.per_second: list[float] = []
        try:
            ready = self._answer()
        except BaseException:
            self.close()
            raise
        self.memory_bytes = int(ready["memory_bytes"])
        self.device = str(ready["device"])

    def turn(self, seconds: float = BLOCK_S) -> float:
        """Its time for a call in milliseconds, as the median of this turn's calls."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps({"seconds": seconds}) + "\n")
            self._child.stdin.flush()
        except OSError:
            pass  # it has died: that it does not answer says so
        answer = self._answer()
        self.ms.append(answer["ms"])
        self.per_second.append(answer["per_second"])
        return self.ms[-1]

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._child.poll() is None

    def close(self) -> None:
        """Ends the process."""
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Candidate:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            status = self._child.wait()
            died = f"signal {-status}" if status < 0 else f"status {status}"
            raise CompileError(
                f"the process that measures it died with {died}", hint="free some memory"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CompileError(f"it does not run: {answer['error']}", hint="try other settings")
        return answer


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
