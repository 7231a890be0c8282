# SPDX-License-Identifier: Apache-2.0
"""The process of a candidate, as whoever gives it turns sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .candidate import TRUSTED
from .errors import CompileError


class CandidateProcess:
    """A started candidate. ``wait_ready`` has to be asked first, ``close`` last.

    Args:
        bundle: the bundle.
        target: its variant.
        path: the Python path of the process.
        trust: load machine code that another machine built.
        own_session: signals of this process' terminal do not reach it.
    """

    def __init__(
        self,
        bundle: Path,
        target: str,
        path: str,
        *,
        trust: bool = False,
        own_session: bool = False,
    ) -> None:
        words = [str(bundle.absolute()), target, *([TRUSTED] if trust else [])]
        self._own_session = own_session
        self._child = subprocess.Popen(
            [sys.executable, "-m", "trtpack_runtime.candidate", *words],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=own_session,
        )

    def wait_ready(self) -> dict[str, Any]:
        """Waits until it is loaded: ``memory_bytes`` that it takes, and the ``device`` it runs on.

        Raises:
            CompileError: it does not load.
        """
        return self._answer()

    def turn(self, seconds: float) -> dict[str, Any]:
        """Has it called for so long: ``ms`` of a call, and calls ``per_second``.

        Raises:
            CompileError: a call fails, or it has died.
        """
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps({"seconds": seconds}) + "\n")
            self._child.stdin.flush()
        except OSError:
            pass  # it has died: that it does not answer says so
        return self._answer()

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._child.poll() is None

    def kill(self) -> None:
        """Ends the process, and what it has started where it has a session of its own."""
        if self._own_session and self._child.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
        self._child.kill()

    def close(self) -> None:
        """Ends the process and waits for that."""
        self.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with suppress(OSError):  # what was not written yet, and nobody reads any more
                    stream.close()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            status = self._child.wait()
            died = f"signal {-status}" if status < 0 else f"status {status}"
            raise CompileError(
                f"the process that measures it died with {died}", hint="free some memory"
            )
        answer: Mapping[str, Any] = json.loads(line)
        if "error" in answer:
            raise CompileError(f"it does not run: {answer['error']}", hint="try other settings")
        return dict(answer)
