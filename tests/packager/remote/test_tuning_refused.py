# SPDX-License-Identifier: Apache-2.0
"""What is refused before anything is built, and what a log of trials is of."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.packager.machines import ORIN, facts
from tests.runtime import deferred
from trtpack import tuning
from trtpack.errors import ConfigError
from trtpack.options import Options
from trtpack.remote.login import take_lease
from trtpack.remote.measuring import Stay
from trtpack.report import BuildReport, Progress
from trtpack.target import find_target
from trtpack.tuning.search import Built, Search
from trtpack_runtime.errors import DeviceError

from .searching import CLEAN, CPU, Far, login, never, options
from .sshd import Server


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("orin", "device is not what this is built for: orin"),
        ("cpu", "--tune cannot measure on device: its Python"),
    ],
)
def test_a_device_that_cannot_is_refused_before_anything_is_built(
    device: Server, tmp_path: Path, target: str, told: str
) -> None:
    given = options(device, targets=(target,), output=tmp_path / "b.tar")
    with pytest.raises(DeviceError, match=told) as raised:
        tuning.tune(given, never, Progress())
    assert raised.value.hint
    assert not list(tmp_path.glob("b*"))
    assert device.settled() == CLEAN


def test_a_device_that_another_has(device: Server, tmp_path: Path, whole: Server) -> None:
    given = options(device, output=tmp_path / "b.tar")
    with login(device).device() as there:
        take_lease(there, login(device), "builds another", print)
        with pytest.raises(DeviceError, match="has held this device"):
            tuning.tune(given, never, Progress())
        assert device.lease.exists()
    assert device.settled() == CLEAN


@pytest.mark.parametrize(
    ("target", "changes", "told"),
    [
        ("cpu", {"engine": "reference"}, "nothing to tune"),
        ("orin", {"engine": "inductor"}, "on ssh://orin: AOTInductor compiles on the GPU it is"),
    ],
)
def test_what_nobody_builds_is_refused_without_a_login(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    changes: Mapping[str, Any],
    told: str,
) -> None:
    monkeypatch.setattr(tuning, "facts", lambda: facts(gpus=[], problems=[]))
    given = Options((target,), output=tmp_path / "b.tar", on="ssh://orin", tune=True)
    with pytest.raises(ConfigError, match=told):
        tuning.tune(replace(given, **changes), never, Progress())
    assert list(tmp_path.iterdir()) == []


def test_the_log_is_of_the_device_and_not_of_the_way_there() -> None:
    orin = find_target("orin")
    there = facts(gpus=[ORIN], cpu={"model": "Cortex-A78AE", "count": 8})
    same = tuning._machine(there, orin)
    assert same == tuning._machine(dict(there), orin)
    for other in ({"count": 4}, {"model": "another"}):
        changed = {**there, "cpu": {**there["cpu"], **other}}
        assert tuning._machine(changed, orin) != same
    assert tuning._machine({**there, "tensorrt": "10.3.0"}, orin) != same
    given = Options(("orin",), on="ssh://orin")
    other = replace(given, on="ssh://10.0.0.7", ssh_options=("-J gate",), lease_timeout_s=1.0)
    assert tuning._plain(given) == tuning._plain(other)
    assert tuning._plain(given) != tuning._plain(replace(given, cool_below_c=50.0))


def test_space_and_log_are_those_of_the_devices_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kept(Stay):
        facts = facts(gpus=[], cpu={"model": "Cortex-A78AE", "count": 12})

    @contextlib.contextmanager
    def staying(*_: object) -> Iterator[Stay]:
        yield Kept(Far(), 65.0, print)  # type: ignore[arg-type]  # a double

    def run(search: Search, usual: Built) -> dict[str, Any]:
        searches.append(search)
        raise ConfigError("enough")

    def built(given: Options, *_: object) -> BuildReport:
        deferred.write(given.output, variants=())
        return BuildReport("m", 0, 0, (), (), {}, {}, ())

    searches: list[Search] = []
    monkeypatch.setattr(tuning, "facts", lambda: facts(gpus=[], cpu={"model": "x", "count": 4}))
    monkeypatch.setattr(tuning, "cannot_build_here", lambda *_, **__: None)
    monkeypatch.setattr(tuning, "staying", staying)
    monkeypatch.setattr(Search, "run", run)
    given = Options(("cpu",), output=tmp_path / "b.tar", on="ssh://orin", tune=True)
    with pytest.raises(ConfigError, match="enough"):
        tuning.tune(given, built, Progress())
    (search,) = searches
    (threads,) = [setting.others for setting in search.space if setting.name == "threads"]
    assert threads == (6, 3, 1)
    head = json.loads(search.log.path.read_text().splitlines()[0])
    assert head["of"]["machine"] == tuning._machine(Kept.facts, CPU)
