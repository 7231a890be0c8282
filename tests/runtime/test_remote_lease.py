# SPDX-License-Identifier: Apache-2.0
"""The lease of a device: one holder, a queue, and what dead holders left."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from trtpack_runtime.errors import DeviceError
from trtpack_runtime.remote import lease

_HOLDER = """
import sys, time
from pathlib import Path
from trtpack_runtime.remote import lease
held = lease.take({"holder": "ann@host"}, 0, lambda by: True, Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / lease.FILE


def waits(_: Mapping[str, Any]) -> bool:
    return True


def test_it_says_who_holds_it_and_is_gone_afterwards(path: Path) -> None:
    held = lease.take({"holder": "ann@host", "task": "builds resnet"}, 0, waits, path)
    assert held.left_behind is None
    told = json.loads(path.read_text())
    assert (told["holder"], told["task"]) == ("ann@host", "builds resnet")
    assert path.stat().st_mode & 0o777 == 0o666  # other users have to lock it
    held.release()
    assert not path.exists()


def test_the_second_waits_and_is_told_for_whom(path: Path) -> None:
    first = lease.take({"holder": "ann@host", "task": "builds"}, 0, waits, path)
    told: list[Any] = []

    def wait(by: Mapping[str, Any]) -> bool:
        if not told:
            threading.Timer(0.3, first.release).start()
        told.append(by)
        return True

    second = lease.take({"holder": "bob@host"}, 20, wait, path)
    assert told[0]["holder"] == "ann@host"
    assert told[0]["for_s"] >= 0
    assert json.loads(path.read_text())["holder"] == "bob@host"
    second.release()
    assert not path.exists()


def test_what_others_write_there_is_shown_as_text(path: Path) -> None:
    first = lease.take({"holder": "ann@host"}, 0, waits, path)
    for text in ('{"holder": "\\u001b[2Jeve", "since": "long ago", "task": 7}', "[]", "{", "\xff"):
        path.write_text(text, encoding="latin-1")
        told: list[Any] = []
        with pytest.raises(lease.GivenUp):
            lease.take({}, 20, lambda by: told.append(by) or False, path)  # noqa: B023 called within the round
        assert told[0]["holder"] in ("[2Jeve", "another host")
        assert (told[0]["task"], told[0]["for_s"]) == ("", 0.0)
    first.release()


def test_nobody_waits_longer_than_was_said(path: Path) -> None:
    first = lease.take({"holder": "ann@host"}, 0, waits, path)
    with pytest.raises(DeviceError, match="ann@host has held this device for about"):
        lease.take({"holder": "bob@host"}, 0, waits, path)
    with pytest.raises(lease.GivenUp):
        lease.take({"holder": "bob@host"}, 20, lambda by: False, path)
    first.release()


def test_a_holder_that_was_killed_holds_nothing(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _HOLDER, path], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(DeviceError):
        lease.take({"holder": "bob@host"}, 0, waits, path)
    child.kill()
    child.wait()
    child.stdout.close()
    assert path.exists()
    mine = lease.take({"holder": "bob@host"}, 0, waits, path)
    assert mine.left_behind is not None
    assert mine.left_behind["holder"] == "ann@host"
    mine.release()
    assert not path.exists()


def test_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(DeviceError, match="cannot take the lease"):
        lease.take({"holder": "bob@host"}, 0, waits, path)
    assert (tmp_path / "precious").read_text() == "mine"
