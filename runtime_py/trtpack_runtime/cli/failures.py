# SPDX-License-Identifier: Apache-2.0
"""What a user sees when a command fails."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import traceback

import click

from .. import __version__
from ..atomic import FULL
from ..errors import ConfigError, DeviceError, InternalError, TrtpackError

DEGRADED = 8
"""The exit code where all is right, but engines that belong here could not be built or loaded, or
compute something else, so that PyTorch runs their segments."""


def report(error: Exception, debug: bool) -> int:
    """Prints ``error:`` and ``hint:`` on stderr; answers the exit code.

    A bug of ours leaves its traceback in a file, whose path is printed; ``debug`` shows every
    traceback.
    """
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    known = _known(error)
    if known is not None:
        _say("error", "red", known.message)
        if known.hint:
            _say("hint", "cyan", known.hint)
        return known.exit_code
    summary = next(iter(str(error).splitlines()), "")
    name = "" if isinstance(error, InternalError) else f"{type(error).__name__}: "
    _say("error", "red", f"this is a bug in trtpack: {name}{summary}".rstrip(": "))
    log = None if debug else _write_log(error)
    _say("hint", "cyan", f"report it with the log {log}" if log else "report it with this output")
    return InternalError.exit_code


def stopped(how: str) -> None:
    """Says on stderr that a signal ended the command."""
    _say("error", "red", how)
    _say("hint", "cyan", "run it again; no unfinished file was left")


def _known(error: Exception) -> TrtpackError | None:
    """The error as one that a user can act on, None for a bug."""
    if isinstance(error, TrtpackError):
        return error
    if isinstance(error, OSError) and error.filename and error.strerror:
        where = os.fsdecode(error.filename) if not isinstance(error.filename, int) else "a file"
        return ConfigError(
            f"cannot use {where}: {error.strerror.lower()}", hint="check the path and the disk"
        )
    if isinstance(error, OSError) and error.errno in FULL:
        return ConfigError(
            "cannot write the output: no space left on its disk", hint="free space there"
        )
    if isinstance(error, MemoryError):
        return DeviceError("out of memory", hint="free memory on this machine")
    return None


def _say(label: str, colour: str, text: str) -> None:
    plain = "NO_COLOR" in os.environ or not sys.stderr.isatty()
    shown = f"{label}:" if plain else click.style(f"{label}:", fg=colour, bold=True)
    click.echo(f"{shown} {text}", err=True)


def _write_log(error: Exception) -> str | None:
    """The path of a new file with the traceback, None where none can be written."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="trtpack-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write(f"trtpack {__version__}, Python {platform.python_version()}\n")
            file.write(f"{platform.platform()}\n{shlex.join(sys.argv)}\n\n")
            file.write("".join(traceback.format_exception(error)))
            return file.name
    except OSError:
        return None
