# SPDX-License-Identifier: Apache-2.0
"""The group of all verbs. None is imported before it is called, not even for ``--help``."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click
from click.shell_completion import CompletionItem

from .. import __version__
from ..errors import ConfigError, InternalError
from ..spelling import nearest
from .sections import HELP_OPTIONS

ENTRY_POINTS = "trtpack.commands"
COMPLETE_VARIABLE = "_TRTPACK_COMPLETE"
"""What a shell's completion script sets when it asks."""

HOST, DEVICE, INSIDE, OTHER = (
    "Build, on the host",
    "Run, on the device",
    "Look inside",
    "Other",
)


@dataclass(frozen=True)
class Verb:
    """A command that is not imported yet: where it is (``module:attribute``) and what it says."""

    where: str
    section: str
    help: str


VERBS: Mapping[str, Verb] = {
    "run": Verb(
        "trtpack_runtime.cli.run:run", DEVICE, "Prove a bundle on this machine and measure it."
    ),
    "resolve": Verb(
        "trtpack_runtime.cli.resolve:resolve",
        DEVICE,
        "Say which variant of a bundle fits this machine, and why.",
    ),
    "finish": Verb(
        "trtpack_runtime.cli.finish:finish",
        DEVICE,
        "Build a bundle's engines here, for all devices like this one.",
    ),
    "farm": Verb(
        "trtpack_runtime.cli.farm:farm", DEVICE, "Serve a build farm: a scheduler, and workers."
    ),
    "doctor": Verb(
        "trtpack_runtime.cli.doctor:doctor", DEVICE, "Say what this machine has to run bundles."
    ),
    "prune": Verb(
        "trtpack_runtime.cli.prune:prune", DEVICE, "Drop engines built here that are old or large."
    ),
    "verify": Verb(
        "trtpack_runtime.cli.verify:verify", INSIDE, "Compare every digest of a bundle."
    ),
    "completion": Verb(
        "trtpack_runtime.cli.completion:completion", OTHER, "Print a shell's completion script."
    ),
}
"""The runtime's own."""


@dataclass(frozen=True)
class Elsewhere:
    """A verb that another distribution brings: which, and what it says in the list of all."""

    distribution: str
    section: str
    help: str


ELSEWHERE: Mapping[str, Elsewhere] = {
    "build": Elsewhere("trtpack", HOST, "Build a model into a bundle for one or more targets."),
    "explain": Elsewhere("trtpack", HOST, "Say why operators go to TensorRT or stay in PyTorch."),
    "targets": Elsewhere("trtpack", HOST, "List the devices a bundle can be built for."),
    "matrix": Elsewhere(
        "trtpack", HOST, "Say which of many models and targets to build, for CI to run."
    ),
    "docker": Elsewhere(
        "trtpack", HOST, "Make a container image of a bundle, or what one is built from."
    ),
    "ops": Elsewhere("trtpack", HOST, "List the operators that TensorRT can have, and why not."),
    "cache": Elsewhere(
        "trtpack-tools",
        DEVICE,
        "See, compare and move your built engines and timing caches.",
    ),
    "inspect": Elsewhere("trtpack-tools", INSIDE, "Show what a bundle holds, without loading it."),
    "profile": Elsewhere(
        "trtpack-tools", INSIDE, "Measure every segment and layer of a bundle on this machine."
    ),
    "sweep": Elsewhere(
        "trtpack-tools", INSIDE, "Measure a bundle or model at several batch sizes, and advise."
    ),
    "extract": Elsewhere(
        "trtpack-tools", INSIDE, "Take the TensorRT engines out of a bundle as files."
    ),
    "debug": Elsewhere(
        "trtpack-tools", INSIDE, "Find the layer where an engine computes something else."
    ),
    "update-weights": Elsewhere(
        "trtpack-tools", OTHER, "Give a bundle other weights, without building it again."
    ),
}


class LazyGroup(click.Group):
    """Knows its verbs by name: the runtime's own, and those that other distributions add."""

    @cached_property
    def verbs(self) -> dict[str, Verb]:
        """Every verb in the order of ``--help``."""
        found = {**VERBS, **{point.name: _added(point) for point in _points()}}
        sections = (HOST, DEVICE, INSIDE, OTHER)
        return dict(sorted(found.items(), key=lambda item: sections.index(item[1].section)))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs' names."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a verb; None if there is none of that name."""
        verb = self.verbs.get(cmd_name)
        return None if verb is None else _load(cmd_name, verb.where)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but an unknown verb suggests the nearest."""
        name = args[0]
        if name not in self.verbs and not name.startswith("-"):
            near = nearest(name, self.verbs)
            hint = "see all with: trtpack --help"
            if name in ELSEWHERE:
                hint = f"install it: pip install {ELSEWHERE[name].distribution}"
            elif near:
                hint = f"did you mean {near}? {hint}"
            raise ConfigError(f"unknown command {name!r}", hint=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One list of verbs a section."""
        width = max(map(len, self.verbs))
        for section in (HOST, DEVICE, INSIDE, OTHER):
            rows = [(n.ljust(width), v.help) for n, v in self.verbs.items() if v.section == section]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs and options, from the table alone."""
        verbs = [
            CompletionItem(name, help=verb.help)
            for name, verb in self.verbs.items()
            if name.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)


def _points() -> list[EntryPoint]:
    found = {p.name: p for p in entry_points(group=ENTRY_POINTS) if p.name not in VERBS}
    order = list(ELSEWHERE)
    return sorted(
        found.values(), key=lambda p: (order.index(p.name) if p.name in order else 99, p.name)
    )


def _added(point: EntryPoint) -> Verb:
    if point.name in ELSEWHERE:
        known = ELSEWHERE[point.name]
        return Verb(point.value, known.section, known.help)
    source = point.dist.name if point.dist is not None else point.value
    return Verb(point.value, OTHER, f"From {source}.")


def _load(name: str, where: str) -> click.Command:
    module, _, attribute = where.partition(":")
    with naming_missing_modules(name):
        command: Any = getattr(import_module(module), attribute)
    if not isinstance(command, click.Command):
        raise InternalError(f"{where} is no command")
    return command


@contextmanager
def naming_missing_modules(verb: str) -> Iterator[None]:
    """ConfigError where an import needs a package that is not installed; one of ours is a bug."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("trtpack", "trtpack_runtime", "trtpack_tools"):
            raise
        raise ConfigError(
            f"trtpack {verb} needs the Python module {missing}",
            hint=f"install it: pip install {missing}",
        ) from error


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"trtpack {__version__}, Python {platform.python_version()}")
        ctx.exit()


@click.command(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": HELP_OPTIONS, "max_content_width": 100},
    epilog="Every command explains itself with examples: trtpack COMMAND --help",
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks of errors.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
@click.pass_context
def trtpack(ctx: click.Context) -> None:
    """Package a PyTorch model for a device, and run it there."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
