# SPDX-License-Identifier: Apache-2.0
"""``trtpack cache``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from trtpack_runtime.cli.prune import prune
from trtpack_runtime.cli.text import columns, size
from trtpack_runtime.device import facts
from trtpack_runtime.finish import Stores
from trtpack_runtime.tactic_differences import differences
from trtpack_runtime.tactics import Tactics

from ..cache_files import EngineFile, export_files, read_files, write_files
from ..cache_items import Item, key_of, lookup, merge, store_item, tactics_named
from .cache_text import (
    SHORT_KEY,
    count_text,
    differences_text,
    engine_json,
    engine_text,
    list_text,
    of_text,
    tactics_json,
    tactics_text,
)

EXAMPLES = """\b
Examples:
  trtpack cache ls
  trtpack cache show 3f2a
  trtpack cache diff old.tar:orin new.tar:orin
  trtpack cache export 3f2a -o orin.tar     # on one device
  trtpack cache import orin.tar             # on another of its kind
  trtpack cache merge -o all.cache a.cache b.cache
  trtpack cache prune --older-than 30d      # trtpack prune is the same
"""


@click.group(epilog=EXAMPLES)
def cache() -> None:
    """See, compare and move what builds left: engines, and timing caches of their tactics.

    Both are found again by everything they depend on, and neither is ever required. A timing cache
    is good for one TensorRT on one kind of device. Single tactics can be read from TensorRT 10.8
    on, which has not been run on hardware yet; older caches are only bytes. What was edited in a
    lock file, or imported, counts as not run on hardware until a build here has begun with it.
    """


cache.add_command(prune)


def _completed(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Keys for a shell, each with what it is of."""
    stores = Stores()
    items: list[Item] = [*stores.engines.entries(), *stores.tactics.entries()]
    return [
        CompletionItem(key_of(item)[:SHORT_KEY], help=_of(item))
        for item in items
        if key_of(item).startswith(incomplete)
    ]


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def ls(as_json: bool) -> None:
    """List engines and timing caches, with sizes and ages."""
    stores = Stores()
    if not as_json:
        click.echo(list_text(stores))
        return
    found = {
        "engines": [engine_json(entry) for entry in stores.engines.entries()],
        "tactics": [
            tactics_json(tactics, stores.tactics.kept_at(tactics.key), whole=False)
            for tactics in stores.tactics.entries()
        ],
        "folders": [str(stores.engines.folder), str(stores.tactics.folder)],
        "limit_bytes": stores.engines.limit_bytes,
    }
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


@cache.command()
@click.argument("key", shell_complete=_completed)
@click.option("--all", "everything", is_flag=True, help="List every tactic, not the slowest only.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def show(key: str, everything: bool, as_json: bool) -> None:
    """Show what is known of the engine or timing cache KEY.

    The beginning of a key will do.
    """
    stores = Stores()
    item = lookup(stores, key)
    if as_json:
        told = (
            tactics_json(item, stores.tactics.kept_at(item.key), whole=True)
            if isinstance(item, Tactics)
            else engine_json(item)
        )
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    elif isinstance(item, Tactics):
        click.echo(tactics_text(item, stores, everything=everything))
    else:
        click.echo(engine_text(item))


@cache.command()
@click.argument("first", shell_complete=_completed)
@click.argument("second", shell_complete=_completed)
@click.option("--all", "everything", is_flag=True, help="List every difference.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def diff(ctx: click.Context, first: str, second: str, everything: bool, as_json: bool) -> None:
    """Compare two timing caches tactic by tactic.

    FIRST and SECOND are each a key, a file or BUNDLE:TARGET. Ends with 1 where they differ. Times
    are not compared, they differ at every measurement. Caches of TensorRT before 10.8 cannot be
    read: of two such, only sizes and bytes are told.
    """
    stores = Stores()
    a, b = tactics_named(stores, first), tactics_named(stores, second)
    equal = a.blob == b.blob and not (a.edited or b.edited)
    found = [] if equal else differences(a, b)
    if as_json:
        told = {
            "of": [a.key.to_json(), b.key.to_json()],
            "bytes": [len(a.blob), len(b.blob)],
            "same_bytes": equal,
            "differences": [difference.to_json() for difference in found],
        }
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        if a.key != b.key:
            click.echo(f"of two kinds of device: {a.key}, and {b.key}")
        if equal:
            click.echo(f"the same {size(len(a.blob))}, {count_text(a)}")
        else:
            click.echo(differences_text(a, found, everything=everything))
    if found:
        ctx.exit(1)


@cache.command(name="merge")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="NAME.cache, which gets NAME.lock.json beside it, a folder, or an archive FILE.tar.",
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.argument("caches", nargs=-1, required=True, shell_complete=_completed)
def merge_command(output: Path, force: bool, caches: tuple[str, ...]) -> None:
    """Make one timing cache of several of one kind of device.

    CACHES are keys, files or BUNDLE:TARGET. Where several know a tactic, the first one's stays.
    Only the TensorRT that wrote them, on such a device, can merge caches.
    """
    stores = Stores()
    made = merge([tactics_named(stores, name) for name in caches], facts())
    written = write_files(export_files(made), output, force=force)
    click.echo(f"wrote {_paths(written)}: {count_text(made)}, {size(len(made.blob))}")


@cache.command()
@click.argument("key", shell_complete=_completed)
@click.option(
    "-o",
    "--output",
    metavar="DIR|FILE.tar",
    type=click.Path(path_type=Path),
    required=True,
    help="A folder, an archive, or NAME.cache for a timing cache.",
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
def export(key: str, output: Path, force: bool) -> None:
    """Write the engine or timing cache KEY to files.

    Another device of its kind can import them.
    """
    item = lookup(Stores(), key)
    written = write_files(export_files(item), output, force=force)
    click.echo(f"wrote {_paths(written)}: {_of(item)}")


@cache.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--replace", is_flag=True, help="Have this timing cache instead of the one that is there."
)
@click.option("--trust", is_flag=True, help="Take engines with machine code that others built.")
def import_command(file: Path, replace: bool, trust: bool) -> None:
    """Take FILE, which export wrote, or a bundle's timing caches.

    A timing cache is merged with the one that is there, by the TensorRT of that device. So is what
    was edited in its lock file (from TensorRT 10.8 on) written into it.
    """
    stores = Stores()
    with tempfile.TemporaryDirectory(prefix="trtpack-") as scratch:
        rows = []
        for item in read_files(file, Path(scratch)):
            new = store_item(item, stores, facts, trust=trust, instead=replace)
            key = item.key if isinstance(item, EngineFile) else item.key.digest
            rows.append((key[:SHORT_KEY], "taken" if new else "was there", _of(item)))
    click.echo(columns(rows, indent=0))


def _of(item: Item | EngineFile) -> str:
    if isinstance(item, Tactics):
        return f"timing cache of {item.key}"
    if isinstance(item, EngineFile):
        return " ".join(str(item.about[n]) for n in ("model", "segment") if item.about.get(n))
    return of_text(item)


def _paths(paths: list[Path]) -> str:
    return " and ".join(map(str, paths))
