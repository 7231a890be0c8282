# SPDX-License-Identifier: Apache-2.0
"""``trtpack farm``: the machines that ``trtpack build --farm`` sends engines to."""

from __future__ import annotations

from importlib.util import find_spec

import click

from ..device import facts
from ..errors import ConfigError
from .gpu_option import gpu_option

EXAMPLES = """\b
Examples:
  trtpack farm scheduler
  trtpack farm worker tcp://10.0.0.5:8786
  trtpack farm worker tcp://10.0.0.5:8786 --target orin --name orin-3
  trtpack build --matrix matrix.toml --farm tcp://10.0.0.5:8786 -o bundles

\b
Whoever reaches the scheduler can run code on all of the farm: keep it within a network of
your own, or give Dask TLS certificates and write tls:// (see docs/how-to/build-on-a-farm.md).
"""


@click.group(epilog=EXAMPLES)
def farm() -> None:
    """Serve a build farm, on Dask: one scheduler, a worker on each device."""


@farm.command()
@click.argument("scheduler")
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="What this device builds for; repeat for more.  [default: what its facts say]",
)
@click.option("--name", help="What reports call it.  [default: its address]")
@gpu_option()
def worker(scheduler: str, targets: tuple[str, ...], name: str | None) -> None:
    """Build engines on this device for whoever asks SCHEDULER, one after the other."""
    _needs_dask()
    from ..farm.serving import named_targets, serve

    here = facts()
    known = targets or named_targets(here)
    click.echo(f"builds for {', '.join(known)}", err=True)
    serve(scheduler, known, here, name, lambda text: click.echo(text, err=True))


@farm.command()
@click.option(
    "--listen",
    metavar="ADDRESS",
    default="tcp://:8786",
    show_default=True,
    help="Where workers and builds find it.",
)
@click.option(
    "--dashboard",
    metavar="ADDRESS",
    default=":8787",
    show_default=True,
    help="Where Dask's dashboard is, which needs bokeh.",
)
def scheduler(listen: str, dashboard: str) -> None:
    """Run the scheduler that workers and builds meet at; `dask scheduler` does as well."""
    _needs_dask()
    from ..farm.serving import schedule

    schedule(listen, dashboard, lambda text: click.echo(text, err=True))


def _needs_dask() -> None:
    if find_spec("distributed") is None:
        raise ConfigError(
            "a farm needs Dask, which is not installed here",
            hint="pip install 'trtpack[farm]', on a device pip install 'trtpack-runtime[farm]'",
        )
