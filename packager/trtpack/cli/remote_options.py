# SPDX-License-Identifier: Apache-2.0
"""The flags of ``trtpack build`` about the device that builds for it, in a section of its help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from trtpack_runtime.cli.device_options import device_option, lease_timeout, ssh_option

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    device_option(
        "--on",
        metavar="ADDRESS",
        help="Build and prove the engines on this device: ssh://user@host, ssh://host:2222, "
        "ssh://host/folder with room. It needs Python 3.10 and its TensorRT.",
    ),
    ssh_option,
    device_option(
        "--remote-python",
        metavar="FILE",
        default="python3",
        show_default=True,
        help="The Python to start there: the one that has TensorRT.",
    ),
    lease_timeout,
    device_option(
        "--cool-below",
        "cool_below_c",
        metavar="CELSIUS",
        type=click.FloatRange(0, min_open=True),
        default=65.0,
        show_default=True,
        help="Let the device's GPU cool to less before tactics, or candidates of --tune, are "
        "measured on it.",
    ),
)


def remote_options(command: Decorated) -> Decorated:
    """Adds them to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
