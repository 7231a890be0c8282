# SPDX-License-Identifier: Apache-2.0
"""The flags of ``trtpack build`` that let it measure settings, in a section of its help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from trtpack_runtime.cli.sections import SectionOption

from ..options import OPTIMIZE_NAMES

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _option(*names: str, **settings: Any) -> Callable[[Decorated], Decorated]:
    return click.option(*names, cls=SectionOption, section="Tuning options", **settings)


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    _option(
        "--tune",
        is_flag=True,
        help="Build and measure other settings of the engines, here or on the device of --on, and "
        "ship the best. Each trial is kept beside the bundle; a tuning that was ended goes on "
        "where it was.",
    ),
    _option(
        "--trials",
        metavar="N",
        type=click.IntRange(1),
        help="Try at most so many, the settings as they are among them.",
    ),
    _option(
        "--budget-minutes",
        metavar="N",
        type=click.FloatRange(0, min_open=True),
        help="Begin no trial later.",
    ),
    _option(
        "--optimize",
        type=click.Choice(OPTIMIZE_NAMES),
        default="latency",
        show_default=True,
        help="What the best is best at.",
    ),
)


def tuning_options(command: Decorated) -> Decorated:
    """Adds the tuning options to a command."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command
