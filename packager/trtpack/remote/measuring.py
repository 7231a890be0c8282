# SPDX-License-Identifier: Apache-2.0
"""Candidates of ``--tune`` on the device: one connection that has it for as long as is tuned."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from trtpack_runtime.errors import DeviceError, TrtpackError

from ..options import Options
from ..report import DeviceReport
from ..report.text import size_text
from ..target import Target
from .checks import check_room, targets_of
from .cooling import cool_down
from .device import Device
from .login import Login, Say, take_lease
from .smoke import cannot_smoke

_LOG = logging.getLogger("trtpack.remote")


class RemoteCandidate:
    """A candidate's process on a device; as ``trtpack_runtime.candidate_process`` has one here."""

    def __init__(self, device: Device, bundle: str, target: str) -> None:
        self._device, self._bundle, self._target = device, bundle, target

    def wait_ready(self) -> Mapping[str, Any]:
        """Starts it and waits until it is loaded.

        Raises:
            CompileError: it does not load.
            ConnectionLost: the device is gone.
        """
        return self._device.ask("candidate", bundle=self._bundle, variant=self._target)

    def turn(self, seconds: float) -> Mapping[str, Any]:
        """Has it called for so long: ``ms`` of a call, and calls ``per_second``.

        Raises:
            CompileError: a call fails, or it has died.
            ConnectionLost: the device is gone.
        """
        return self._device.ask("turn", bundle=self._bundle, seconds=seconds)

    @property
    def is_alive(self) -> bool:
        """Whether its process runs, on a device that can be asked."""
        try:
            return bool(self._device.ask("is_alive", bundle=self._bundle)["alive"])
        except TrtpackError:
            return False

    def close(self) -> None:
        """Ends the process and removes its bundle; nothing is waited for."""
        self._device.tell("drop", bundle=self._bundle)


class Stay:
    """A device that nobody else has meanwhile, and what was waited for on it.

    Args:
        device: the device, whose lease is taken.
        cool_below_c: the temperature of its GPU from which it cools down before it measures.
        say: told in clauses what is going on.
    """

    def __init__(self, device: Device, cool_below_c: float, say: Say) -> None:
        self._device, self._cool_below_c, self._say = device, cool_below_c, say
        self._numbers = count()
        self.waited_s = self.cooled_s = 0.0
        self.notes: list[str] = []

    @property
    def facts(self) -> Mapping[str, Any]:
        """The device's facts."""
        return self._device.hello.facts

    def has_lease(self) -> bool:
        """Whether the device is still this host's, as far as it has noticed."""
        return self._device.is_connected

    def start(self, bundle: Path, target: str) -> RemoteCandidate:
        """Sends a candidate's bundle there.

        Raises:
            DeviceError: there is no room for it.
            ConnectionLost: the device is gone.
        """
        device, size = self._device, bundle.stat().st_size
        room = replace(device.hello, free_bytes=device.ask("room")["free_bytes"])
        check_room(room, size, device.address)
        name = f"candidate-{next(self._numbers)}.tar"

        def sent(done: int, nbytes: int) -> None:
            self._say(f"send {size_text(size)} to {device.address}: {100 * done // nbytes} %")

        device.put(bundle, name, sent)
        return RemoteCandidate(device, name, target)

    def settle(self) -> None:
        """Waits until the device is cool enough, but not for ever.

        Raises:
            ConnectionLost: it is gone.
        """
        waited_s, hot = cool_down(self._device, self._cool_below_c, self._say)
        self.cooled_s += waited_s
        if hot is not None:
            self.notes.append(f"{hot}: candidates were measured hot")

    def told(self, report: DeviceReport) -> DeviceReport:
        """The report of a build there with what was waited for besides."""
        return replace(
            report,
            waited_s=report.waited_s + self.waited_s,
            cooled_s=report.cooled_s + self.cooled_s,
            notes=(*report.notes, *dict.fromkeys(self.notes)),
        )


@contextmanager
def staying(login: Login, target: Target, options: Options, say: Say) -> Iterator[Stay]:
    """The device for as long as the block lasts; nobody else has it then, and nothing stays there.

    Raises:
        ConfigError: there is no such device.
        DeviceError: it cannot be used, is not the target, cannot run a bundle, or another host has
            had it for longer than one would wait.
    """
    say(f"look at {login.address}")
    with login.device() as device:
        targets_of(device.hello, [target], options, login.address)
        if (why := cannot_smoke(device.hello)) is not None:
            raise DeviceError(
                f"--tune cannot measure on {login.address}: {why}",
                hint="install it there, or name another Python with --remote-python",
            )

        def waiting(text: str) -> None:
            _LOG.warning("%s: %s", login.address, text)
            say(text)

        stay = Stay(device, options.cool_below_c, say)
        lease = take_lease(device, login, f"tunes for {target.name}", waiting)
        stay.waited_s = lease["waited_s"]
        yield stay
