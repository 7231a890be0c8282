# SPDX-License-Identifier: Apache-2.0
"""``trtpack extract``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.cli.text import columns, size, wrapped
from trtpack_runtime.errors import ConfigError

from ..extract import Extracted, extract_plans, extract_triton

EXAMPLES = """\b
Examples:
  trtpack extract bundle.tar
  trtpack extract bundle.tar -o plans --target h200 --segment forward_0
  trtpack extract bundle.tar --networks
  trtpack extract bundle.tar --triton -o model_repository --target h200

\b
With --triton, max_batch_size is the profile's largest batch where every input
and output begins with the same open size from 1 on; else it is 0.
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write.  [default: the bundle's name, without .tar]",
)
@click.option("-t", "--target", metavar="NAME", help="Take this variant's engines only.")
@click.option("--segment", metavar="NAME", help="Take this segment's engine only.")
@click.option("--networks", is_flag=True, help="Also write the portable networks and the weights.")
@click.option("--triton", is_flag=True, help="Write a model repository for Triton.")
@click.option("--name", metavar="NAME", help="The model's name for --triton.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def extract(
    bundle: Path,
    folder: Path | None,
    target: str | None,
    segment: str | None,
    networks: bool,
    triton: bool,
    name: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Take the TensorRT engines out of BUNDLE, byte for byte, for trtexec or Triton.

    Needs neither PyTorch nor TensorRT. An engine runs only on the GPU and the TensorRT it was built
    for.
    """
    opened = open_bundle(bundle)
    to = folder or Path(bundle.stem)
    if triton:
        if segment is not None or networks:
            raise ConfigError(
                "--triton takes a whole variant", hint="leave out --segment and --networks"
            )
        written = extract_triton(opened, to, target=target, name=name, force=force)
    else:
        if name is not None:
            raise ConfigError("--name is for --triton", hint="add --triton, or leave it out")
        written = extract_plans(
            opened, to, target=target, segment=segment, networks=networks, force=force
        )
    if as_json:
        click.echo(json.dumps([file.to_json() for file in written], indent=2))
        return
    click.echo(columns(_row(file) for file in written))
    if any(file.stripped for file in written):
        text = (
            "A stripped engine has no weights: refit it from the bundle's weights before it runs, "
            "as trtpack run does."
        )
        click.echo(wrapped(text))


def _row(file: Extracted) -> tuple[str, ...]:
    note = "stripped of its weights" if file.stripped else ""
    return str(file.path), size(file.nbytes), f"sha256 {file.sha256[:12]}", note
