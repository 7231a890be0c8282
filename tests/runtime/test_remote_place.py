# SPDX-License-Identifier: Apache-2.0
"""The device's end by its parts: folders of dead ones, silence, cooling down."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.machines import MACHINES
from trtpack_runtime.remote import place
from trtpack_runtime.remote.condition import condition, cool_down
from trtpack_runtime.remote.place import PREFIX, Place, sweep
from trtpack_runtime.remote.wire import Lost, Receiver, Sender

JETSON = {"jetson": {"module": "p3701-0005"}, "gpus": [{"index": 0}]}


def test_folders_of_dead_processes_are_swept(tmp_path: Path) -> None:
    mine, dead, alive, young, other = (
        tmp_path / name
        for name in (f"{PREFIX}mine", f"{PREFIX}dead", f"{PREFIX}alive", f"{PREFIX}young", "other")
    )
    for folder in (mine, dead, alive, young, other):
        folder.mkdir()
        (folder / "bundle.tar").touch()
        if folder != young:
            os.utime(folder, (0, 0))
    descriptor = os.open(alive, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert sweep(mine) == [str(dead)]
    os.close(descriptor)
    assert sorted(tmp_path.iterdir()) == sorted([mine, alive, young, other])


def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    here = Place(tmp_path)
    assert here.path("bundle.tar") == tmp_path / "bundle.tar"
    for name in ("", "..", "../x", "/etc/passwd", "a/b"):
        with pytest.raises(ValueError, match="no file's name"):
            here.path(name)


def test_what_is_written_meanwhile_is_removed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    tries: list[Path] = []

    def rmtree(path: Path, ignore_errors: bool) -> None:
        tries.append(path)
        if len(tries) == 3:
            root.rmdir()

    monkeypatch.setattr(place.shutil, "rmtree", rmtree)
    Place(root).remove()
    assert len(tries) == 3


def test_messages_with_bytes_and_the_end() -> None:
    read, write = os.pipe()
    receiver = Receiver(read, 5)
    with os.fdopen(write, "wb") as sink:
        sender = Sender(sink)
        sender.send({"id": 1})
        sender.send({"id": 2}, b"a\nb" * 1000)
        sender.stream({"id": 3}, 4, iter([b"ab", b"cd"]))
        assert receiver.message() == {"id": 1}
        assert receiver.all_of(receiver.message()["bytes"]) == b"a\nb" * 1000
        assert receiver.message()["id"] == 3
        assert receiver.all_of(4) == b"abcd"
        sink.write(b"Welcome!\n")
    with pytest.raises(Lost, match="no message: b'Welcome!'"):
        receiver.message()
    with pytest.raises(Lost, match="it was closed"):
        receiver.message()
    os.close(read)


def test_an_end_that_says_nothing_is_gone() -> None:
    read, write = os.pipe()
    with pytest.raises(Lost, match="nothing came for"):
        Receiver(read, 0.05).message()
    os.close(read)
    with pytest.raises(Lost), os.fdopen(write, "wb", 0) as sink:
        Sender(sink).send({"id": 1})


def heated(root: Path, degrees: float) -> None:
    zone = root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "type").write_text("gpu-thermal\n")
    (zone / "temp").write_text(f"{degrees * 1000:.0f}\n")


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    for path, text in MACHINES["orin-jetpack-6.0"].files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_a_jetsons_condition(orin: Path) -> None:
    heated(orin, 54.5)
    found = condition(JETSON, orin)
    assert found["power_mode"] == "MODE_30W"
    assert found["readings"] == {"sm_max_mhz": 1300.0, "sm_mhz": 306.0, "temperature_c": 54.5}
    assert found["throttled"] == []


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    nothing = {"power_mode": None, "readings": {}, "throttled": []}
    assert condition({"gpus": [], "jetson": None}, tmp_path) == nothing
    done = cool_down({"gpus": [], "jetson": None}, 65, 10, print, tmp_path)
    assert done == {"waited_s": 0.0, "temperature_c": None, "cool": True}


def test_it_waits_until_the_gpu_is_cool(orin: Path) -> None:
    heated(orin, 71)
    told: list[Any] = []

    def sleep(_: float) -> None:
        heated(orin, 71 - 3 * len(told))

    done = cool_down(JETSON, 65, 300, told.append, orin, sleep)
    assert told == [71.0, 68.0, 65.0]
    assert done == {"waited_s": 6.0, "temperature_c": 62.0, "cool": True}


def test_it_does_not_wait_for_ever(orin: Path) -> None:
    heated(orin, 80)
    done = cool_down(JETSON, 65, 6, lambda degrees: None, orin, lambda seconds: None)
    assert done == {"waited_s": 6.0, "temperature_c": 80.0, "cool": False}


def test_heat_that_slows_it_down_is_waited_for_too(orin: Path) -> None:
    heated(orin, 50)
    alert = orin / "sys/class/thermal/cooling_device0"
    alert.mkdir()
    (alert / "type").write_text("gpu-throttle-alert\n")
    (alert / "cur_state").write_text("1\n")

    def sleep(_: float) -> None:
        (alert / "cur_state").write_text("0\n")

    done = cool_down(JETSON, 65, 60, lambda degrees: None, orin, sleep)
    assert (done["waited_s"], done["cool"]) == (2.0, True)
