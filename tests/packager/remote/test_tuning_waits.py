# SPDX-License-Identifier: Apache-2.0
"""Heat is waited for, and a device that is away for a while."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from tests.packager.machines import ORIN, facts
from trtpack import tuning
from trtpack.options import Options
from trtpack.remote import finishing
from trtpack.remote.device import ConnectionLost
from trtpack.remote.measuring import Stay
from trtpack.remote.ssh import UnreachableError
from trtpack.report import BuildReport, DeviceReport, Progress

from .searching import Far, never


def test_heat_is_waited_for_and_told() -> None:
    said: list[str] = []
    hot = Far(cool={"waited_s": 300.0, "temperature_c": 80.0, "cool": False})
    stay = Stay(hot, 65.0, said.append)  # type: ignore[arg-type]  # a double
    stay.settle()
    stay.settle()
    report = stay.told(DeviceReport("orin", {}, {}, {}, cooled_s=1.0, notes=("a note",)))
    assert said == ["it cools down, 80 °C"] * 2
    assert report.cooled_s == 601.0
    assert report.notes == (
        "a note",
        "orin did not cool down in 300 s, it has 80 °C: candidates were measured hot",
    )
    cool = Far(cool={"waited_s": 2.0, "temperature_c": 60.0, "cool": True})
    stay = Stay(cool, 65.0, said.append)  # type: ignore[arg-type]  # a double
    stay.settle()
    assert (stay.cooled_s, stay.notes) == (2.0, [])


@pytest.mark.parametrize(
    ("errors", "raised", "attempts"),
    [
        ([ConnectionLost("gone"), UnreachableError("no"), UnreachableError("no")], None, 4),
        ([UnreachableError("no")], UnreachableError, 1),
        ([ConnectionLost("gone")] * 9, ConnectionLost, finishing.ATTEMPTS),
    ],
)
def test_a_device_that_is_away_for_a_while(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    errors: list[Exception],
    raised: type[Exception] | None,
    attempts: int,
) -> None:
    """It is looked for again; one that never was there is told at once, one that does not come
    back after a while."""
    monkeypatch.setattr(finishing, "_PAUSE_S", (0.0,))
    monkeypatch.setattr(tuning, "facts", lambda: facts(gpus=[ORIN]))
    left, tried = [*errors], list[None]()

    def once(run: Any) -> BuildReport:
        tried.append(None)
        if left:
            raise left.pop(0)
        return BuildReport("m", 0, 0, (), (), {}, {}, ())

    monkeypatch.setattr(tuning._Tuning, "_once", once)
    given = Options(("cpu",), output=tmp_path / "b.tar", on="ssh://orin", tune=True)
    expected = contextlib.nullcontext() if raised is None else pytest.raises(raised)
    with expected:
        tuning.tune(given, never, Progress())
    assert len(tried) == attempts
