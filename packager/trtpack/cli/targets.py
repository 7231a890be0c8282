# SPDX-License-Identifier: Apache-2.0
"""``trtpack targets``: the devices that bundles can be built for."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from ..errors import ConfigError
from ..target import AUTO, NATIVE, Target, catalogue, catalogue_for, find_target, read_user_file
from ..target.native import SUMMARY
from ..toml_places import FileError

EXAMPLES = """\b
Examples:
  trtpack targets
  trtpack targets show orin
  trtpack targets show orin@jetpack-7.2 --json
  trtpack targets show orin --sources
  trtpack targets show native
  trtpack targets check my-robot.toml; trtpack targets show my-robot.toml

The target native is this machine's own GPU with the TensorRT installed on it; auto is that, or the
CPU where there is none. A file of your own says what a device is, or how it differs from one of the
list:

\b
  like = "orin"
  device = "our robot's Orin"
  memory_gib = 32
"""
GIB = 1 << 30


@click.group(invoke_without_command=True, epilog=EXAMPLES)
@click.pass_context
def targets(context: click.Context) -> None:
    """List the devices to build for, show one, or check a file of your own."""
    if context.invoked_subcommand is None:
        context.invoke(list_targets)


@targets.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_targets(as_json: bool = False) -> None:
    """List every device with its default software stack."""
    known = catalogue()
    found = known.all()
    if as_json:
        click.echo(json.dumps([_plain(t) for t in found], indent=2))
        return
    rows = [("TARGET", "DEVICE", "SM", "ENGINE", "STACK")]
    for target in found:
        also = known.aliases_of(target)
        name = min((_device(target), *also), key=len) if also else _device(target)
        engine = "not supported" if target.unsupported else target.engine_kind
        rows.append((name, target.device, target.sm or "-", engine, target.stack or "-"))
    for row in _aligned(sorted(rows[1:]), rows[0]):
        click.echo(row)
    click.echo("\nA device's other names and stacks: trtpack targets show TARGET")
    click.echo(
        f"{SUMMARY[0].upper()}{SUMMARY[1:]}, where it has them: {NATIVE}; or its CPU: {AUTO}"
    )


@targets.command()
@click.argument("name", metavar="TARGET")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--sources", "with_sources", is_flag=True, help="Say where each fact was read, when.")
def show(name: str, as_json: bool, with_sources: bool) -> None:
    """Show one device: its facts, its other names, the stacks it can have."""
    target = find_target(name)
    known = catalogue()
    facts_of = _sources(name, target, whole=as_json) if with_sources else []
    if as_json:
        said = {"sources": [dict(zip(_SOURCE_KEYS, row, strict=True)) for row in facts_of]}
        click.echo(json.dumps({**_plain(target), **(said if with_sources else {})}, indent=2))
        return
    also = [a for a in (_device(target), *known.aliases_of(target)) if a != target.name]
    facts = [
        ("also called", ", ".join(also)),
        ("SM", target.sm),
        ("architecture", target.arch),
        ("memory", _memory(target)),
        ("engine", target.engine_kind),
        ("TensorRT", ".".join(map(str, target.tensorrt)) if target.tensorrt else None),
        ("CUDA", target.cuda),
        ("OS", target.os),
        ("Python", target.python),
        ("FP8", "yes" if target.has_fp8 else "no"),
        ("FP4", "yes" if target.has_fp4 else "no"),
        ("DLA cores", str(target.dla_cores) if target.dla_cores else None),
        ("stack", target.stack),
        ("other stacks", ", ".join(s for s in known.stacks_of(target) if s != target.stack)),
    ]
    click.echo(f"{target.name}: {target.device}")
    for row in _aligned([(f"  {label}", value) for label, value in facts if value]):
        click.echo(row)
    for note in target.notes:
        click.echo(textwrap.fill(note, 100, initial_indent="  ", subsequent_indent="  "))
    for row in _aligned([("  FACT", "NOTED", "SOURCE"), *facts_of] if facts_of else []):
        click.echo(row)


@targets.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check a target file of your own: every mistake with its line and column.

    Errors: exit code 2 where the file says something wrong.
    """
    try:
        own = read_user_file(file, catalogue())
    except FileError as error:
        for problem in error.problems:
            click.echo(problem)
        count = len(error.problems)
        raise ConfigError(
            f"{file} has {count} mistake{'s' if count > 1 else ''}", hint="correct the file"
        ) from error
    stacks = ", ".join(own.device.stacks)
    click.echo(f"{file}: {own.device.device}, with {stacks}; build for it with --target {file}")


_SOURCE_KEYS = ("fact", "noted", "source")


def _sources(name: str, target: Target, *, whole: bool) -> list[tuple[str, ...]]:
    """A row for each fact of the device and of its stack: the fact, the dates, the addresses."""
    known = catalogue_for(name)
    device = known.devices.get(_device(target))
    rows: list[tuple[str, ...]] = []
    for owner in (device, known.stacks.get(target.stack)):
        for fact, ids in owner.sources.items() if owner else ():
            read = [known.sources[id] for id in ids if id in known.sources]
            places = (s.address if whole else str(s).rpartition(", ")[0] for s in read)
            where = "; ".join(places) or ", ".join(ids)
            rows.append((f"  {fact}", str(max((s.noted for s in read), default="-")), where))
    return rows


def _device(target: Target) -> str:
    return target.key.partition("@")[0]


def _memory(target: Target) -> str | None:
    if target.memory_bytes is None:
        return None
    shared = ", shared with the CPU" if target.memory_unified else ""
    return f"{target.memory_bytes / GIB:g} GiB{shared}"


def _plain(target: Target) -> dict[str, object]:
    return dataclasses.asdict(target)


def _aligned(rows: list[tuple[str, ...]], head: tuple[str, ...] | None = None) -> Iterator[str]:
    every = [head, *rows] if head else rows
    if not every:
        return
    widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))]
    for row in every:
        yield "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
