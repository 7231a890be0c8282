# SPDX-License-Identifier: Apache-2.0
"""Logging in to a device, and having it for oneself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trtpack_runtime.durations import about

from .address import Address, parse_address
from .checks import check_clock
from .device import Device, this_host
from .ssh import Ssh

Say = Callable[[str], None]
"""Told in a clause what is going on."""


@dataclass(frozen=True)
class Login:
    """Which device, and how to get there: what ``--on`` and the options beside it say."""

    address: Address
    ssh_options: tuple[str, ...] = ()
    python: str = "python3"
    lease_timeout_s: float = 3600.0

    @staticmethod
    def to(
        on: str, ssh_options: tuple[str, ...] = (), python: str = "python3", timeout_s: float = 3600
    ) -> Login:
        """The login to the device of an address.

        Raises:
            ConfigError: it is no address.
        """
        return Login(parse_address(on), ssh_options, python, timeout_s)

    @contextlib.contextmanager
    def device(self) -> Iterator[Device]:
        """The device, as long as the block lasts; its clock is right.

        Raises:
            TrtpackError: there is no such device, or it cannot be used.
        """
        with (
            Ssh(self.address, self.ssh_options) as ssh,
            Device(ssh, self.address, self.python) as device,
        ):
            check_clock(device.hello, self.address)
            yield device


def take_lease(device: Device, login: Login, task: str, say: Say) -> dict[str, Any]:
    """Waits until nobody else works on the device; ``waited_s``, and what a dead one left.

    Raises:
        DeviceError: another has it for longer than one would wait.
    """

    def held(message: Mapping[str, Any], _: bytes) -> None:
        by = message["held"]
        at_work = f", which {by['task']}" if by["task"] else ""
        say(f"waiting for {by['holder']}{at_work} for {about(by['for_s'])}")

    who = {**this_host(), "task": task}
    return device.ask("lease", held, who=who, timeout_s=login.lease_timeout_s)
