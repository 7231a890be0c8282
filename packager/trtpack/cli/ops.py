# SPDX-License-Identifier: Apache-2.0
"""``trtpack ops``: which operators become TensorRT, and how."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .build import converters_option

if TYPE_CHECKING:
    from ..coverage import Operator

EXAMPLES = """\b
Examples:
  trtpack ops
  trtpack ops cumsum
  trtpack ops '^aten::.*pool' --target orin@jetpack-6.0
  trtpack ops --json

PATTERN is a regular expression that an operator's name has to contain.
"""
_HEAD = ("OPERATOR", "HOW", "TYPES", "DYNAMIC", "SINCE", "NOTES")
_SHORT = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int64": "i64", "int32": "i32"}


@click.command(epilog=EXAMPLES)
@click.argument("pattern", default="")
@click.option("-t", "--target", metavar="NAME", help="Only what this device's TensorRT can have.")
@converters_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", is_flag=True, help="Print the page docs/reference/ops.md.")
def ops(
    pattern: str, target: str | None, converters: tuple[str, ...], as_json: bool, markdown: bool
) -> None:
    """List operators: converted, taken apart, removed by a pass, or refused with the reason."""
    import re

    from ..errors import ConfigError
    from ..target import find_target

    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"{pattern!r} is no regular expression: {error}", hint="escape what is meant literally"
        ) from error
    wanted = find_target(target) if target else None
    from ..converters import load_module
    from ..coverage import table

    for module in converters:
        load_module(module)
    rows = table(pattern, wanted)
    if as_json:
        click.echo(json.dumps([row.to_json() for row in rows], indent=2))
    elif markdown:
        click.echo(page(rows), nl=False)
    else:
        lines = [_HEAD, *map(_cells, rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
        for line in lines if rows else ():
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            click.echo("  ".join(cells).rstrip())
        click.echo(f"{len(rows)} operators")


def page(rows: list[Operator]) -> str:
    """The table as a page of the documentation."""
    kinds: list[str] = [row.how for row in rows]
    counted = ", ".join(f"{kinds.count(how)} {text}" for how, text in _COUNTED.items())
    text = [
        "# Operators",
        "",
        "What `trtpack ops` prints, written by `scripts/ops`: every operator of PyTorch's core",
        "ATen set, every other one that has a converter, and what is taken apart before converters",
        "see it.",
        f"{len(rows)} operators: {counted}.",
        "",
        "*Types* are those it was converted with in the tests, *dynamic* says whether with open",
        "sizes, *since* is the first TensorRT that takes it; bfloat16 came with 10.0. What is not",
        "listed stays in PyTorch.",
        "",
        "| operator | how | types | dynamic | since | notes |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        text.append("| " + " | ".join(cell or " " for cell in _cells(row)) + " |")
    return "\n".join(text) + "\n"


_COUNTED = {
    "converter": "with a converter",
    "decomposed": "taken apart",
    "pass": "removed or replaced by a pass",
    "functional": "in place of which capture puts another",
    "refused": "refused with a reason",
}


def _cells(row: Operator) -> tuple[str, ...]:
    dynamic = {None: "", True: "yes", False: "no"}[row.dynamic]
    types = " ".join(_SHORT.get(name, name) for name in row.dtypes)
    return row.name, _how(row), types, dynamic, row.since, row.notes


def _how(row: Operator) -> str:
    match row.how:
        case "converter":
            return "converter"
        case "decomposed":
            return f"decomposed to {row.detail}" if row.detail else "decomposed"
        case "functional":
            return f"as {row.detail}"
        case "pass":
            return f"pass {row.detail}"
        case "refused":
            return f"refused: {row.detail}"
