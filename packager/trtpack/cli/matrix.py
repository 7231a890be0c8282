# SPDX-License-Identifier: Apache-2.0
"""``trtpack matrix``: which models to build for which targets, for CI to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from trtpack_runtime.cli.run import run
from trtpack_runtime.errors import SmokeFailure

from ..errors import ConfigError
from ..matrix import (
    FORMATS,
    Plan,
    Verdict,
    judge,
    plan_cells,
    read_matrix,
    read_previous,
    to_github,
    to_gitlab,
    to_json,
    to_text,
)
from ..options import Options
from .build import build, options_of
from .matrix_options import NAMES as MATRIX_OPTIONS

EXAMPLES = """\b
Examples:
  trtpack matrix matrix.toml
  trtpack matrix matrix.toml --format json --since previous.json > plan.json
  trtpack matrix matrix.toml --format github >> "$GITHUB_OUTPUT"
  trtpack matrix matrix.toml --format gitlab > cells.yml
  trtpack matrix matrix.toml --results results

\b
FILE has a row for each model and a column for each target:
  [models.resnet18]
  model = "torchvision:resnet18"
  build = { liven = true }
  [targets.orin]
  runner = ["self-hosted", "jetson-orin"]

Ready workflows for GitHub and GitLab are in scripts/ci.
"""
NOT_IN_A_MATRIX: Mapping[str, frozenset[str]] = {
    "build": frozenset(
        {"target", "output", "report", "log-file", "dry-run", "verbose", "quiet"}
        | {name.replace("_", "-") for name in MATRIX_OPTIONS}
    ),
    "run": frozenset(
        {"target", "output", "against", "json", "junit", "verbose", "quiet", "input", "strict"}
    ),
}
"""Options that the workflow sets itself."""


class CommandFlags:
    """The options of ``trtpack build`` and ``trtpack run`` by name."""

    def __init__(self) -> None:
        commands = {"build": build, "run": run}
        self._commands: dict[str, click.Command] = dict(commands)
        self._options = {
            verb: {
                name.removeprefix("--"): option
                for option in command.params
                if isinstance(option, click.Option)
                for name in option.opts
                if name.startswith("--")
            }
            for verb, command in commands.items()
        }

    def names(self, verb: str) -> Iterable[str]:
        """Those that a matrix may set."""
        return self._options[verb].keys() - NOT_IN_A_MATRIX[verb]

    def words(self, verb: str, settings: Mapping[str, Any]) -> list[str]:
        """The settings as on a command line, each checked by the command itself.

        Raises:
            ConfigError: a value that the option does not take.
        """
        words = [word for name in settings for word in self._words(verb, name, settings[name])]
        self._parsed(verb, words)
        return words

    def options(self, model: str, target: str, settings: Mapping[str, Any]) -> Options:
        """What ``trtpack build`` makes of the settings.

        Raises:
            ConfigError: they cannot be.
        """
        return self.parsed([*self.words("build", settings), "--target", target])

    def parsed(self, words: list[str]) -> Options:
        """What ``trtpack build`` makes of a command line without its MODEL.

        Raises:
            ConfigError: it cannot be.
        """
        parsed = self._parsed("build", words)
        for name in ("model", "verbose", "quiet", "log_file", *MATRIX_OPTIONS):
            parsed.pop(name)
        return options_of(**parsed)

    def _words(self, verb: str, name: str, value: Any) -> list[str]:
        option = self._options[verb][name]
        if isinstance(value, list) and (option.multiple or option.nargs > 1):
            return [word for item in value for word in self._words(verb, name, item)]
        if option.is_flag and not isinstance(value, bool):
            raise ConfigError(f"wanted true or false, got {value!r}")
        if option.is_flag:
            return [f"--{name}"] if value else []
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            lists = ", or a list of them" if option.multiple else ""
            raise ConfigError(f"wanted text or a number{lists}, got {value!r}")
        return [f"--{name}={value}"]

    def _parsed(self, verb: str, words: list[str]) -> dict[str, Any]:
        try:
            with self._commands[verb].make_context(f"trtpack {verb}", ["x", *words]) as context:
                return dict(context.params)
        except click.UsageError as error:
            message = error.format_message().partition(": ")
            raise ConfigError(message[2] or message[0]) from error


@click.command(epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="github: lines for $GITHUB_OUTPUT; gitlab: a child pipeline.",
)
@click.option(
    "--since",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What --format json wrote before: leave out cells that nothing has changed of.",
)
@click.option(
    "--results",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Judge the reports there, FOLDER/CELL/build.json and run.json: exit code 7 where a cell "
    "failed that may not.",
)
def matrix(file: Path, form: str, since: Path | None, results: Path | None) -> None:
    """Say which cells of FILE, models by targets, to build and test.

    Cells that cannot be are left out with the reason, told on standard error and in JSON.
    """
    flags = CommandFlags()
    plan = plan_cells(read_matrix(file, flags), flags, read_previous(since) if since else None)
    verdict = judge(plan, results) if results else None
    if form == "github":
        text = to_github(plan)
    elif form == "gitlab":
        text = to_gitlab(plan)
    elif form == "json":
        text = to_json(plan, verdict.results if verdict else None)
    else:
        text = "\n".join(to_text(plan, verdict.results if verdict else None)) + "\n"
    click.echo(text, nl=False)
    if form != "text":
        _tell_left_out(plan)
    if verdict is not None:
        _tell(verdict)


def _tell_left_out(plan: Plan) -> None:
    for cell in plan.cells:
        if cell.state in ("impossible", "excluded"):
            click.echo(f"{cell.name} is {cell.state}: {cell.reason}", err=True)
        elif cell.state == "unchanged":
            click.echo(f"{cell.name} has not changed", err=True)


def _tell(verdict: Verdict) -> None:
    for name, surprise in verdict.surprises.items():
        click.echo(f"{name}: {surprise}", err=True)
    for name, why in verdict.failures.items():
        click.echo(f"{name} failed: {why}", err=True)
    if not verdict.passed:
        count = len(verdict.failures)
        raise SmokeFailure(
            f"{count} cell{'s' if count > 1 else ''} failed",
            hint="see the jobs of the cells, or list what may fail under [[expect-failure]]",
        )
