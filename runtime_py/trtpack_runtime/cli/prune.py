# SPDX-License-Identifier: Apache-2.0
"""``trtpack prune``."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import click

from ..amounts import parse_bytes, parse_seconds
from ..durations import ago
from ..engine_store import StoredEngine
from ..errors import ConfigError
from ..finish import Stores
from ..tactics import Tactics
from .text import columns, plural, size

EXAMPLES = """\b
Examples:
  trtpack prune                             # what is beyond the store's limit
  trtpack prune --size 5G --older-than 30d
  trtpack prune --all --dry-run
"""

_SHORT_KEY = 12


@click.command(epilog=EXAMPLES)
@click.option("--size", "limit", metavar="SIZE", help="Keep at most so much of each, such as 5G.")
@click.option("--older-than", metavar="AGE", help="Drop what was not used so long: 12h, 30d, 8w.")
@click.option("--all", "everything", is_flag=True, help="Drop everything.")
@click.option(
    "--only", type=click.Choice(["engines", "tactics"]), help="Leave the other kind alone."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be dropped.")
@click.option("--json", "as_json", is_flag=True, help="Print what was dropped as JSON.")
def prune(
    limit: str | None,
    older_than: str | None,
    everything: bool,
    only: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Drop engines and timing caches that were built here and are old or too large.

    What was used last stays longest. The age of an engine is the time since it was used, that of a
    timing cache since it was written. Builds that run meanwhile are left alone, and so are loaded
    engines; one that is dropped is built again when it is wanted. The environment variable
    TRTPACK_STORE_LIMIT, such as 2G, sets how much the engines may take in all; where it is not set
    that is 20 GiB, or half of what their disk has for them.
    """
    if everything and (limit is not None or older_than is not None):
        raise ConfigError("--all leaves nothing to choose", hint="give --all alone, or without it")
    stores = Stores()
    bytes_, seconds = _bounds(limit, older_than, everything)
    found: list[StoredEngine | Tactics] = []
    left = 0
    if only != "tactics":
        most = stores.engines.limit_bytes if bytes_ is None and seconds is None else bytes_
        wanted = stores.engines.surplus(most, seconds)
        removed = wanted if dry_run else stores.engines.prune(most, seconds)
        found, left = [*removed], len(wanted) - len(removed)
    if only != "engines" and (bytes_ is not None or seconds is not None):
        tactics = stores.tactics.surplus(bytes_, seconds)
        dropped = tactics if dry_run else stores.tactics.prune(bytes_, seconds)
        found += dropped
        left += len(tactics) - len(dropped)
    if as_json:
        told = {"dropped": [_key(i) for i in found], "bytes": _total(found), "dry_run": dry_run}
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(text(found, dry_run=dry_run))
    if left > 0:
        raise ConfigError(
            f"cannot remove {left} of {left + len(found)} from {stores.engines.folder.parent}",
            hint="check who owns the folder, and whether its disk is read-only",
        )


def text(dropped: Sequence[StoredEngine | Tactics], *, dry_run: bool) -> str:
    """A line for each, and what they take together."""
    lines = []
    if dropped:
        rows = ((_key(i)[:_SHORT_KEY], size(_nbytes(i)), _of(i), _used(i)) for i in dropped)
        lines.append(columns(rows, indent=0))
    engines = sum(isinstance(item, StoredEngine) for item in dropped)
    counts = f"{plural(engines, 'engine')} and {plural(len(dropped) - engines, 'timing cache')}"
    verb = "would drop" if dry_run else "dropped"
    return "\n".join([*lines, f"{verb} {counts}, {size(_total(dropped))}"])


def _bounds(
    limit: str | None, older_than: str | None, everything: bool
) -> tuple[int | None, float | None]:
    if everything:
        return 0, None
    return (
        None if limit is None else parse_bytes(limit),
        None if older_than is None else parse_seconds(older_than),
    )


def _key(item: StoredEngine | Tactics) -> str:
    return item.key if isinstance(item, StoredEngine) else item.key.digest


def _of(item: StoredEngine | Tactics) -> str:
    if isinstance(item, Tactics):
        return f"timing cache of {item.key}"
    return " ".join(str(item.about[n]) for n in ("model", "segment") if item.about.get(n))


def _used(item: StoredEngine | Tactics) -> str:
    return f"used {ago(time.time() - item.used_at)}" if isinstance(item, StoredEngine) else ""


def _nbytes(item: StoredEngine | Tactics) -> int:
    return item.nbytes if isinstance(item, StoredEngine) else len(item.blob)


def _total(items: Sequence[StoredEngine | Tactics]) -> int:
    return sum(map(_nbytes, items))
