# SPDX-License-Identifier: Apache-2.0
"""``trtpack verify``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from ..bundle import open_bundle
from ..tar_layout import Entry
from .text import plural, size

EXAMPLES = """\b
Examples:
  trtpack verify bundle.tar
  trtpack verify --json bundle.tar
"""

_WATCHED_BYTES = 256 << 20
"""Bundles larger than this show how far the reading is."""


@click.command(epilog=EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(bundle: Path, as_json: bool) -> None:
    """Read all of BUNDLE and compare every member with its digest.

    Exits with 5 and names the member where something was changed, lost, added or moved.
    """
    began = time.perf_counter()
    opened = open_bundle(bundle)
    entries = list(opened.entries.values())
    total = sum(entry.size for entry in entries)
    done = 0

    def show(entry: Entry) -> None:
        nonlocal done
        done += entry.size
        if total:
            click.echo(f"\r{done * 100 // total:3d} % of {size(total)}", err=True, nl=False)

    watched = sys.stderr.isatty() and total > _WATCHED_BYTES and not as_json
    opened.verify(show if watched else None)
    if watched:
        click.echo("\r\x1b[K", err=True, nl=False)
    seconds = time.perf_counter() - began
    if as_json:
        result = {
            "bundle": str(bundle),
            "digest": opened.digest,
            "members": len(entries),
            "bytes": total,
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(
        f"{bundle}: sound, {plural(len(entries), 'member')} with {size(total)} match their digests "
        f"({seconds:.2f} s)"
    )
    click.echo(f"digest {opened.digest}")
