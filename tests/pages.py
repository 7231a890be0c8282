# SPDX-License-Identifier: Apache-2.0
"""Does what a page of the docs says: writes its Python files, runs its commands, and holds what
they print against what the page shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from trtpack.cli.build import build
from trtpack.cli.explain import explain
from trtpack_runtime.errors import TrtpackError

BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def walk(page: str) -> int:
    """Follows a page in the current folder; how many commands it has.

    A block of Python begins with its file's name as a comment; any other begins with the command,
    and each line after it is somewhere in what that prints.
    """
    commands = 0
    for language, text in BLOCK.findall(page):
        if language == "python":
            Path(text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
            continue
        line, *shown = text.splitlines()
        output = _without_figures(_output_of(line))
        for wanted in shown:
            assert _without_figures(wanted) in output, line
        commands += 1
    return commands


def _output_of(line: str) -> str:
    verb, *words = shlex.split(line.removeprefix("$ trtpack "))
    command = {"build": build, "explain": explain}[verb]
    try:
        result = CliRunner().invoke(command, words, catch_exceptions=False)
    except TrtpackError as error:
        return f"error: {error}\nhint: {error.hint}"
    assert result.exit_code == 0
    return result.stdout


def _without_figures(text: str) -> str:
    """Text without decimals, whose last digits differ between machines."""
    return re.sub(r"0\.\d+", "0.x", text)
