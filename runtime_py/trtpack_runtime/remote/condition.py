# SPDX-License-Identifier: Apache-2.0
"""How a device is while it measures tactics: power mode, clocks, temperature; and cooling down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import jetson
from ..sensors import Sensors, sensors_for

_EVERY_S = 2.0
_HEAT = ("therm", "throttle-alert")
"""Parts of the names of reasons to slow down that are heat: NVML's, and a Jetson's."""


def condition(facts: Mapping[str, Any], root: Path = Path("/")) -> dict[str, Any]:
    """``power_mode``, ``readings`` and ``throttled`` now; empty where nothing can be asked."""
    sensors = _sensors(facts, root)
    found: dict[str, Any] = {"power_mode": None, "readings": {}, "throttled": []}
    if facts.get("jetson"):
        found["power_mode"] = jetson.power_mode(root)
    if sensors is not None:
        try:
            now = sensors.read()
            found["readings"] = dict(sorted({**sensors.limits(), **now.numbers}.items()))
            found["throttled"] = list(now.throttled)
        finally:
            sensors.close()
    return found


def cool_down(
    facts: Mapping[str, Any],
    below_c: float,
    timeout_s: float,
    on_wait: Callable[[float | None], None],
    root: Path = Path("/"),
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Waits until the GPU is cooler than ``below_c`` and heat does not slow it down.

    Answers ``waited_s``, ``temperature_c`` (None where nobody tells) and ``cool``. Not longer than
    ``timeout_s``: a device in the sun never gets there, and is measured as it is.
    """
    waited = 0.0
    while True:
        now = condition(facts, root)
        degrees = now["readings"].get("temperature_c")
        hot = degrees is not None and degrees >= below_c
        hot = hot or any(part in reason for part in _HEAT for reason in now["throttled"])
        if not hot or waited >= timeout_s:
            return {"waited_s": waited, "temperature_c": degrees, "cool": not hot}
        on_wait(degrees)
        sleep(_EVERY_S)
        waited += _EVERY_S


def _sensors(facts: Mapping[str, Any], root: Path) -> Sensors | None:
    gpus = facts.get("gpus") or ()
    return sensors_for((gpus[0].get("index") or 0) if gpus else None, root)
