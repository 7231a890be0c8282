# SPDX-License-Identifier: Apache-2.0
"""Waiting for a device that is too hot to measure anything on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .device import Device
from .login import Say

COOL_BELOW_C = 65.0
COOL_DOWN_S = 300.0


def cool_down(device: Device, below_c: float, say: Say) -> tuple[float, str | None]:
    """How long the device cooled down, and what to tell of it where it is still hot.

    Raises:
        ConnectionLost: it is gone.
    """

    def hot(message: Mapping[str, Any], _: bytes) -> None:
        degrees = message["hot"]
        say("it cools down" + ("" if degrees is None else f", {degrees:.0f} °C"))

    done = device.ask("cool", hot, below_c=below_c, timeout_s=COOL_DOWN_S)
    if done["cool"]:
        return done["waited_s"], None
    degrees = done["temperature_c"]
    note = f"{device.address} did not cool down in {COOL_DOWN_S:.0f} s"
    return done["waited_s"], note + ("" if degrees is None else f", it has {degrees:.0f} °C")
