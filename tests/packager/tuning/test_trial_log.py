# SPDX-License-Identifier: Apache-2.0
"""A log of trials: what was finished stays, however its writer ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trtpack.errors import ConfigError
from trtpack.trial_log import check_log, open_log

OF = {"model": "a", "machine": "m"}
WRITER = """
import sys
from pathlib import Path
from trtpack.trial_log import open_log
with open_log(Path(sys.argv[1]), {"model": "a", "machine": "m"}) as log:
    while True:
        log.append({"trial": len(log.lines)})
"""


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_log(path, OF) as log:
        assert log.lines == []
        log.append({"trial": 0})
    with open_log(path, OF) as log:
        log.append({"trial": 1})
    with open_log(path, OF) as log:
        assert log.lines == [{"trial": 0}, {"trial": 1}]


def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_log(path, OF) as log:
        log.append({"trial": 0})
    with path.open("a") as file:
        file.write('{"trial": 1, "why": "the wri')
    with open_log(path, OF) as log:
        assert log.lines == [{"trial": 0}]
        log.append({"trial": 2})
    with open_log(path, OF) as log:
        assert log.lines == [{"trial": 0}, {"trial": 2}]


def test_a_killed_writer_leaves_every_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    until = time.monotonic() + 60
    while not (path.exists() and path.read_bytes().count(b"\n") > 5):
        assert time.monotonic() < until
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    with open_log(path, OF) as log:
        assert len(log.lines) >= 5
        assert log.lines == [{"trial": n} for n in range(len(log.lines))]


def test_a_log_of_something_else_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_log(path, OF) as log:
        log.append({"trial": 0})
    before = path.read_bytes()
    with (
        pytest.raises(ConfigError, match="trials that differ in machine and model"),
        open_log(path, {"model": "b", "machine": "n"}),
    ):
        pass
    check_log(path, {"machine": OF["machine"]})
    with pytest.raises(ConfigError, match="trials that differ in machine"):
        check_log(path, {"machine": "n"})
    assert path.read_bytes() == before
    check_log(tmp_path / "none", {"machine": "n"})


@pytest.mark.parametrize(
    ("content", "told"),
    [('{"trial": 0}\n', "is no log of trials"), ("not JSON\n", "is damaged at line 1")],
)
def test_what_is_no_log_is_refused_and_stays(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "log"
    path.write_text(content)
    with pytest.raises(ConfigError, match=told), open_log(path, OF):
        pass
    assert path.read_text() == content


def test_two_cannot_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with (
        open_log(path, OF),
        pytest.raises(ConfigError, match="in use by another process"),
        open_log(path, OF),
    ):
        pass
