# SPDX-License-Identifier: Apache-2.0
"""The command ``trtpack``: runs a verb, and turns errors into two lines and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click
from click.shell_completion import shell_complete

from ..errors import ConfigError, TrtpackError
from .failures import report, stopped
from .group import COMPLETE_VARIABLE, trtpack

__all__ = ["main", "trtpack"]

_ABORTED, _BROKEN_PIPE, _TERMINATED = 130, 141, 143
_DEBUG = "--debug"


class _Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the program stands so that it tidies up."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with its code. ``--debug`` may stand anywhere in it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = _DEBUG in given
    signal.signal(signal.SIGTERM, _terminate)
    code = _run([a for a in given if a != _DEBUG], debug)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _without_stdout()
    sys.exit(code)


def _run(arguments: list[str], debug: bool) -> int:
    """Runs a verb and answers the exit code.

    Not ``click.Command.main``: that takes SIGTERM for Ctrl-C, and exits on a broken pipe.
    """
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        return shell_complete(trtpack, {}, "trtpack", COMPLETE_VARIABLE, instruction)
    try:
        with trtpack.make_context("trtpack", arguments) as context:
            trtpack.invoke(context)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except BrokenPipeError:
        return _without_stdout()
    except _Terminated:
        stopped("terminated")
        return _TERMINATED
    except (click.Abort, KeyboardInterrupt):
        stopped("aborted")
        return _ABORTED
    except click.ClickException as error:
        return report(_of_click(error), debug)
    except Exception as error:
        return report(error, debug)
    return 0


def _of_click(error: click.ClickException) -> TrtpackError:
    """click's complaint in our words: lower case, one line, the next step."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "trtpack"
    return ConfigError(message[:1].lower() + message[1:], hint=f"see: {path} --help")


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _without_stdout() -> int:
    """Nobody reads our output any more: keeps the interpreter from complaining at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _BROKEN_PIPE
