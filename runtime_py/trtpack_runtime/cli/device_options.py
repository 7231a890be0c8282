# SPDX-License-Identifier: Apache-2.0
"""Flags about a device that a command runs on, which several commands have."""

from __future__ import annotations

from functools import partial

import click

from .sections import SectionOption

device_option = partial(click.option, cls=SectionOption, section="On a device")
"""An option in the help's section about devices."""

ssh_option = device_option(
    "--ssh-option",
    "ssh_options",
    multiple=True,
    metavar="WORDS",
    help="Further words for ssh, such as '-F config'; repeat for more.",
)
lease_timeout = device_option(
    "--lease-timeout",
    "lease_timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=3600.0,
    show_default=True,
    help="How long to wait while another host has the device.",
)
