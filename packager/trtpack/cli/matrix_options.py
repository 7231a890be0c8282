# SPDX-License-Identifier: Apache-2.0
"""The flags of ``trtpack build`` for many models at once, in a section of its help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from trtpack_runtime.cli.sections import SectionOption

from ..errors import ConfigError

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_SHARED = ("output", "report", "verbose", "quiet", "log_file", "model")
"""Options that mean the same for one model and for a matrix."""
NO_WORKER = ("fail", "defer")


def _option(*names: str, **settings: Any) -> Callable[[Decorated], Decorated]:
    return click.option(*names, cls=SectionOption, section="Matrix options", **settings)


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    _option(
        "--matrix",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Build every cell of FILE, models by targets, in the place of one MODEL.",
    ),
    _option(
        "--jobs",
        type=click.IntRange(1),
        metavar="N",
        help="Cells that are built here at once.  [default: one for every four CPU cores]",
    ),
    _option(
        "--farm",
        metavar="ADDRESS",
        help="A Dask scheduler whose workers build the engines of targets they have, such as "
        "tcp://10.0.0.5:8786. See: trtpack farm --help",
    ),
    _option(
        "--farm-timeout",
        type=click.FloatRange(0),
        metavar="SECONDS",
        default=60.0,
        show_default=True,
        help="How long to wait for a worker that has a target.",
    ),
    _option(
        "--no-worker",
        type=click.Choice(NO_WORKER),
        default="fail",
        show_default=True,
        help="Where there is none then: the cell fails, or its engines are left to the device.",
    ),
)
NAMES = ("matrix", "jobs", "farm", "farm_timeout", "no_worker")
"""Their parameters."""


def matrix_options(command: Decorated) -> Decorated:
    """Adds the options to a command."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def matrix_of(model: str | None, arguments: dict[str, Any]) -> tuple[Path | None, dict[str, Any]]:
    """The matrix file that was asked for and what is left for it; or None and what is left for one
    model.

    Raises:
        ConfigError: both are given, or neither, or options that only the other heeds.
    """
    context = click.get_current_context()
    given = [
        parameter
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") == ParameterSource.COMMANDLINE
        and parameter.name not in _SHARED
    ]
    file: Path | None = arguments["matrix"]
    if file is None:
        if model is None:
            raise ConfigError(
                "neither a MODEL nor --matrix is given", hint=f"see: {context.command_path} --help"
            )
        if wrong := [p.opts[0] for p in given if p.name in NAMES]:
            raise ConfigError(f"{wrong[0]} is for --matrix", hint=f"leave {wrong[0]} away")
        return None, {key: value for key, value in arguments.items() if key not in NAMES}
    if model is not None:
        raise ConfigError(f"both {model} and --matrix {file} are given", hint="choose one of them")
    if wrong := [max(p.opts, key=len) for p in given if p.name not in NAMES]:
        raise ConfigError(
            f"{wrong[0]} is for one MODEL, a matrix says it of its cells",
            hint=f"write it into {file}, under [build] or for a model or a target",
        )
    alone = ("farm_timeout", "no_worker") if arguments["farm"] is None else ()
    for flag in (f"--{name.replace('_', '-')}" for name in alone if _is_given(name)):
        raise ConfigError(f"{flag} is for --farm", hint=f"leave {flag} away, or add --farm")
    kept = (*NAMES[1:], *_SHARED[:-1])
    asked = {key: arguments[key] for key in kept}
    if context.get_parameter_source("output") != ParameterSource.COMMANDLINE:
        asked["output"] = "bundles"
    return file, asked


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source == ParameterSource.COMMANDLINE
