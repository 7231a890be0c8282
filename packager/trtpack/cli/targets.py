# SPDX-License-Identifier: Apache-2.0
"""``trtpack targets``: the devices that bundles can be built for."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator

import click

from ..target import NATIVE, Target, catalogue, find_target
from ..target.native import SUMMARY

EXAMPLES = """\b
Examples:
  trtpack targets
  trtpack targets show orin
  trtpack targets show orin@jetpack-7.2 --json
  trtpack targets show native

The target native is this machine's own GPU with the TensorRT installed on it.
"""
GIB = 1 << 30


@click.group(invoke_without_command=True, epilog=EXAMPLES)
@click.pass_context
def targets(context: click.Context) -> None:
    """List the devices to build for, or show one."""
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
    click.echo(f"{SUMMARY[0].upper()}{SUMMARY[1:]}, where it has them: {NATIVE}")


@targets.command()
@click.argument("name", metavar="TARGET")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Show one device: its facts, its other names, the stacks it can have."""
    target = find_target(name)
    if as_json:
        click.echo(json.dumps(_plain(target), indent=2))
        return
    known = catalogue()
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
    widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))]
    for row in every:
        yield "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
