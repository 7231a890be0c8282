# SPDX-License-Identifier: Apache-2.0
"""Tries operators in processes of their own, so that a crash is one wrong sample and no more."""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

from tests.sweep.kept import Job
from tests.sweep.trying import Outcome, Settings, outcomes

ROOT = Path(__file__).resolve().parents[2]
SILENCE_SECONDS = 240.0
"""A process that answers nothing for so long hangs."""
_CRASHES = 5
_PATH = os.pathsep.join(
    str(ROOT / part) for part in ("", "packager", "runtime_py", "runtime_py/tools")
)


def run(jobs: Iterable[Job], settings: Settings, lanes: int) -> Iterator[tuple[Job, list[Outcome]]]:
    """The outcomes of each job, as they come, from ``lanes`` processes."""
    free: SimpleQueue[_Child] = SimpleQueue()
    children = [_Child(settings) for _ in range(lanes)]
    for child in children:
        free.put(child)

    def work(job: Job) -> tuple[Job, list[Outcome]]:
        child = free.get()
        try:
            return job, child.outcomes(*job)
        finally:
            free.put(child)

    threads = ThreadPoolExecutor(lanes)
    try:
        for done in as_completed([threads.submit(work, job) for job in jobs]):
            yield done.result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.close()


class _Child:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def outcomes(self, operator: str, dtype: str) -> list[Outcome]:
        found: list[Outcome] = []
        for _ in range(_CRASHES):
            why = self._ask(operator, dtype, found)
            if why is None:
                break
            self.close()
            found.append(Outcome(operator, dtype, len(found), "wrong", why))
        return found

    def _ask(self, operator: str, dtype: str, found: list[Outcome]) -> str | None:
        """Adds what the child answers; says what is the matter where it ends early."""
        process = self._process or self._start()
        assert process.stdin is not None
        job = {"operator": operator, "dtype": dtype, "begin": len(found)}
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        while True:
            line = self._line(process)
            if line is None:
                return f"its process does not answer for {SILENCE_SECONDS:.0f} s"
            if not line:
                return f"its process ends with {process.wait()}"
            answer = json.loads(line)
            if answer is None:
                return None
            found.append(Outcome(**answer))

    def _line(self, process: subprocess.Popen[bytes]) -> bytes | None:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(SILENCE_SECONDS):
                    return None
                more = os.read(process.stdout.fileno(), 1 << 16)
                if not more:
                    return b""
                self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _start(self) -> subprocess.Popen[bytes]:
        settings = json.dumps(dataclasses.asdict(self._settings))
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.sweep.lanes", settings],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _PATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _answer_jobs(settings: Settings) -> None:
    """In the child: jobs come on standard input, outcomes and a final null go out."""
    with os.fdopen(os.dup(1), "w", buffering=1) as out:
        os.dup2(2, 1)  # what anybody prints
        for line in sys.stdin:
            job = json.loads(line)
            for outcome in outcomes(job["operator"], job["dtype"], settings, job["begin"]):
                out.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
            out.write("null\n")


if __name__ == "__main__":
    _answer_jobs(Settings(**json.loads(sys.argv[1])))
