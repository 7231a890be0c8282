# SPDX-License-Identifier: Apache-2.0
"""``trtpack docker``: container images of one bundle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from trtpack_runtime.cli.failures import DEGRADED

from ..containers import Recipe, check_place, recipe_for, run_flags, write_context
from ..errors import ConfigError
from .progress import LiveProgress, progress_for

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

EXAMPLES = """\b
Examples:
  trtpack docker bundle.tar -o context            # what docker build needs, in a folder
  trtpack docker bundle.tar -o context --target orin
  trtpack docker build bundle.tar --target cpu
  trtpack docker smoke bundle.tar --target cpu    # builds it, and runs the golden samples in it
  trtpack docker bundle.tar -o context --base nvcr.io/nvidia/l4t-tensorrt@sha256:...

The image has the base that fits the variant's target, the runtime, the bundle, and `trtpack run` as
its entrypoint; its user is not root, and its health check is the smoke test.
"""


class DockerGroup(click.Group):
    """A group that takes a bundle in the place of a verb for ``context BUNDLE``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the verb in where none is."""
        if args and args[0] not in {*self.commands, *self.get_help_option_names(ctx)}:
            args = ["context", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=DockerGroup,
    invoke_without_command=True,
    epilog=EXAMPLES,
    subcommand_metavar="[context|build|smoke] BUNDLE",
)
@click.pass_context
def docker(context: click.Context) -> None:
    """Make a container image of a bundle, or what one is built from."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _recipe_options(command: Decorated) -> Decorated:
    for decorate in reversed(
        (
            click.argument("bundle", type=click.Path(path_type=Path)),
            click.option(
                "--target", metavar="NAME", help="The variant.  [default: the bundle's only one]"
            ),
            click.option(
                "--base",
                metavar="IMAGE",
                help="The base image, NAME:TAG or NAME@sha256:...  [default: the target's]",
            ),
            click.option(
                "--trust",
                is_flag=True,
                help="Let the image load machine code that another machine built.",
            ),
        )
    ):
        command = decorate(command)
    return command


def _build_options(command: Decorated) -> Decorated:
    for decorate in reversed(
        (
            click.option("--tag", metavar="NAME:TAG", help="[default: the bundle's name:variant]"),
            click.option("--pull", is_flag=True, help="Ask for a newer base image."),
            click.option("--no-cache", is_flag=True, help="Run every step anew."),
            click.option(
                "--build-arg",
                "build_args",
                metavar="NAME=VALUE",
                multiple=True,
                help="As of docker build; repeat for more.",
            ),
            click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
        )
    ):
        command = decorate(command)
    return command


@docker.command()
@_recipe_options
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    required=True,
    type=click.Path(path_type=Path),
    help="The folder to write.",
)
def context(bundle: Path, target: str | None, base: str | None, trust: bool, output: Path) -> None:
    """Write the build context of BUNDLE: Dockerfile, runtime, bundle. Needs no Docker."""
    check_place(output)
    recipe = recipe_for(bundle, variant=target, base=base, trust=trust)
    write_context(recipe, output)
    click.echo(f"{output}: {recipe.name} for {recipe.target}, on {recipe.image.base}")
    for line in _notes(recipe):
        click.echo(line)
    click.echo(f"  docker build --platform {recipe.platform} -t NAME {output}")
    click.echo(f"  docker run --rm {run_flags(recipe)}NAME")


@docker.command()
@_recipe_options
@_build_options
def build(bundle: Path, **options: Any) -> None:
    """Build the image of BUNDLE on the Docker engine that answers."""
    _built(bundle, **options)


@docker.command()
@_recipe_options
@_build_options
@click.pass_context
def smoke(context: click.Context, /, bundle: Path, quiet: bool, **options: Any) -> None:
    """Build the image of BUNDLE and run its golden samples in it.

    Exit codes are those of `trtpack run`.
    """
    from ..containers import engine

    client, recipe, tag = _built(bundle, quiet=quiet, **options)
    done = engine.smoke(client, recipe, tag, _nothing if quiet else click.echo)
    failure = done.failure(tag)
    if failure is not None:
        raise failure
    if done.code == DEGRADED:
        context.exit(DEGRADED)


def _built(
    bundle: Path,
    *,
    target: str | None,
    base: str | None,
    trust: bool,
    tag: str | None,
    pull: bool,
    no_cache: bool,
    build_args: tuple[str, ...],
    quiet: bool,
) -> tuple[Any, Recipe, str]:
    """The client, what was built, and its tag."""
    from ..containers import engine

    recipe = recipe_for(bundle, variant=target, base=base, trust=trust)
    settings = engine.BuildSettings(
        tag or engine.tag_for(recipe), pull, not no_cache, tuple(map(_pair, build_args))
    )
    client = engine.connect()
    say = _nothing if quiet else partial(click.echo, err=True)
    for line in _notes(recipe):
        say(line)
    progress = progress_for(quiet=quiet)
    if isinstance(progress, LiveProgress):  # shows them itself
        say = _nothing
    with progress.step(f"build {settings.tag}") as step:
        image = engine.build(client, recipe, settings, step, say)
    if not quiet:
        click.echo(f"{settings.tag}  {image}")
    return client, recipe, settings.tag


def _nothing(line: str) -> None:
    """Says it to nobody."""


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError(f"--build-arg {text!r} is no NAME=VALUE", hint="write it as BASE=IMAGE")
    return name, value


def _notes(recipe: Recipe) -> list[str]:
    """What a user should know of the choice that was made."""
    notes = []
    if recipe.trust:
        notes.append("  it loads the machine code in the bundle (--trust)")
    elif recipe.code:
        notes.append(
            "  machine code in the bundle was built elsewhere: PyTorch runs its segments, slower, "
            "unless you add --trust"
        )
    if recipe.torch:
        notes.append(f"  segments run in PyTorch: it has {recipe.torch}")
    return notes
