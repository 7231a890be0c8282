# SPDX-License-Identifier: Apache-2.0
"""The process on the device, without SSH: it ends by itself, and tidies up whatever ends it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime import deferred
from trtpack_runtime.remote import lease
from trtpack_runtime.remote.wire import Receiver, Sender

_START = """
import sys
from trtpack_runtime.remote import end
end.SILENCE_S = float(sys.argv[2])
end.main(sys.argv[1], [])
"""
_SECONDS = 30.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "leases").mkdir()
    (tmp_path / "work").mkdir()
    return tmp_path


class Far:
    """A started end, as a host sees it."""

    def __init__(self, folder: Path, silence_s: float) -> None:
        self.root, self.leases = folder / "work", folder / "leases"
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, str(self.root), str(silence_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, lease.FOLDER_VARIABLE: str(self.leases)},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.sender = Sender(self.process.stdin)
        self.receiver = Receiver(self.process.stdout.fileno(), _SECONDS)
        self.hello = self.receiver.message()

    def ask(self, task: str, **values: Any) -> dict[str, Any]:
        self.sender.send({"do": task, "id": 1, **values})
        while (message := self.receiver.message()).get("id") != 1:
            pass
        return message

    def gone(self) -> bool:
        """Whether nothing is left of it, now or in a while."""
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            if not self.root.exists() and not list(self.leases.iterdir()):
                return True
            time.sleep(0.02)
        return False


@contextlib.contextmanager
def started(folder: Path, silence_s: float = 60.0) -> Iterator[Far]:
    far = Far(folder, silence_s)
    try:
        assert far.ask("lease", who={"holder": "me"}, timeout_s=0)["result"]["waited_s"] < 1
        assert json.loads((far.leases / lease.FILE).read_text())["pid"] == far.process.pid
        yield far
    finally:
        far.process.kill()
        far.process.wait()
        for pipe in (far.process.stdin, far.process.stdout):
            assert pipe is not None
            pipe.close()


def test_it_ends_with_standard_input(folder: Path) -> None:
    with started(folder) as far:
        assert far.hello["folder"] == str(far.root)
        assert far.process.stdin is not None
        far.process.stdin.close()
        assert far.process.wait(_SECONDS) == 1
        assert far.gone()


def test_it_ends_where_the_host_says_nothing(folder: Path) -> None:
    with started(folder, silence_s=0.5) as far:
        assert far.process.wait(_SECONDS) == 1
        assert far.gone()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_tidies_up_where_it_is_asked_to_end(folder: Path, number: signal.Signals) -> None:
    with started(folder) as far:
        far.process.send_signal(number)
        assert far.process.wait(_SECONDS) == 1
        assert far.gone()


@pytest.mark.slow
def test_the_children_end_too(folder: Path) -> None:
    with started(folder) as far:
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        (far.root / "trtpack_runtime.py").write_text(code)  # what "-m" finds in that folder
        far.sender.send({"do": "execute", "id": 2, "arguments": []})
        while (message := far.receiver.message()).get("id") != 2:
            pass
        child = int(far.receiver.all_of(message["bytes"]))
        far.sender.send({"do": "end"})
        assert far.process.wait(_SECONDS) == 0
        assert far.gone()
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def candidate_of(far: Far) -> int:
    """A candidate that has been loaded there, by the number of its process."""
    deferred.write(far.root / "c.tar", variants=())
    told = far.ask("candidate", bundle="c.tar", variant="cpu")
    assert told["result"]["device"] == "cpu"
    assert far.ask("is_alive", bundle="c.tar")["result"] == {"alive": True}
    assert far.ask("turn", bundle="c.tar", seconds=0)["result"]["ms"] > 0
    children = Path(f"/proc/{far.process.pid}/task/{far.process.pid}/children").read_text()
    (child,) = children.split()
    return int(child)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["end", "killed"])
def test_candidates_end_with_it(folder: Path, how: str) -> None:
    with started(folder) as far:
        child = candidate_of(far)
        if how == "end":  # in the middle of a turn
            before = ticks(child)
            turn = {"do": "turn", "id": 2, "bundle": "c.tar", "seconds": 1000}
            far.sender.send(turn)
            while ticks(child) < before + 5:
                time.sleep(0.02)
            far.sender.send({"do": "end"})
            assert far.process.wait(_SECONDS) == 0
            assert far.gone()
        else:
            far.process.kill()
            far.process.wait()
        assert ended(child)


@pytest.mark.slow
def test_a_dropped_candidate_is_gone_with_its_bundle(folder: Path) -> None:
    with started(folder) as far:
        child = candidate_of(far)
        assert far.ask("drop", bundle="c.tar")["result"] == {}
        assert ended(child)
        assert not (far.root / "c.tar").exists()
        assert far.ask("is_alive", bundle="c.tar")["result"] == {"alive": False}
        assert far.ask("drop", bundle="c.tar")["result"] == {}
        assert far.ask("room")["result"]["free_bytes"] > 0
        far.sender.send({"do": "end"})
        assert far.process.wait(_SECONDS) == 0


def ticks(process: int) -> int:
    """For how much of the processor a process has computed."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11])


def ended(process: int) -> bool:
    """Whether a process is over, now or in a while; one that nobody has waited for is."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.slow
def test_a_bug_of_ours_is_told_and_tidied_up(folder: Path) -> None:
    with started(folder) as far:
        far.sender.send({"do": "dance", "id": 3})
        while "bug" not in (message := far.receiver.message()):
            pass
        assert "KeyError: 'dance'" in message["bug"]
        assert far.process.wait(_SECONDS) == 1
        assert far.gone()


def test_one_that_was_killed_leaves_what_the_next_removes(folder: Path) -> None:
    with started(folder) as far:
        far.process.kill()
        far.process.wait()
        assert far.root.exists()
    (folder / "work").rename(folder / "trtpack-remote-dead")
    os.utime(folder / "trtpack-remote-dead", (0, 0))
    (folder / "work").mkdir()
    far = Far(folder, 60.0)
    assert far.hello["swept"] == [str(folder / "trtpack-remote-dead")]
    left = far.ask("lease", who={"holder": "you"}, timeout_s=0)["result"]["left_behind"]
    assert left["holder"] == "me"
    far.sender.send({"do": "end"})
    assert far.process.wait(_SECONDS) == 0
    assert far.gone()
    for pipe in (far.process.stdin, far.process.stdout):
        assert pipe is not None
        pipe.close()
