# SPDX-License-Identifier: Apache-2.0
"""``trtpack update-weights``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.cli.group import naming_missing_modules
from trtpack_runtime.cli.text import clean, columns, mark, plural, size

if TYPE_CHECKING:
    from ..update_weights import Updated

EXAMPLES = """\b
Examples:
  trtpack update-weights bundle.tar new.safetensors
  trtpack update-weights bundle.tar new.safetensors -o new.tar
  trtpack update-weights bundle.tar float32.safetensors --cast
"""


@click.command(name="update-weights", epilog=EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("weights", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the new bundle here.  [default: in the place of BUNDLE]",
)
@click.option("--cast", is_flag=True, help="Convert floating-point weights to the bundle's types.")
@click.option("--trust", is_flag=True, help="Run machine code in BUNDLE that others built.")
@click.option(
    "--import",
    "imports",
    metavar="MODULE",
    multiple=True,
    help="Import a module that registers custom operators. Repeat for several.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing unless it fails.")
def update_weights(
    bundle: Path,
    weights: Path,
    output: Path | None,
    cast: bool,
    trust: bool,
    imports: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Give BUNDLE the weights of a safetensors file, without building it again.

    WEIGHTS holds the state_dict of the same model. Constants that follow from it are computed anew.
    Engines built to be refitted or stripped of their weights go on; engines with weights inside are
    left to the device. The new bundle is proved here before it takes its place; its golden outputs
    are those of the runtime's evaluator.
    """
    with naming_missing_modules("update-weights"):
        from ..update_weights import update_weights as update

        began = time.perf_counter()
        opened = open_bundle(bundle)
        updated = update(opened, weights, output or bundle, cast=cast, trust=trust, imports=imports)
    seconds = time.perf_counter() - began
    if as_json:
        click.echo(json.dumps(to_json(updated), indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(text(updated, seconds))


def text(updated: Updated, seconds: float) -> str:
    """What changed, what became of the engines, and what was proved."""
    path = updated.bundle.path
    weights = updated.bundle.manifest.weights
    total = len({**weights.parameters, **weights.buffers})
    derived = f"{plural(updated.derived, 'derived constant')} computed anew"
    lines = [f"{len(updated.changed)} of {plural(total, 'weight')} changed, {derived}"]
    rows = [(f"{v}: {s}", "kept", why) for (v, s), why in updated.kept.items()]
    rows += [(f"{v}: {s}", "left to the device", why) for (v, s), why in updated.dropped.items()]
    if rows:
        lines.append(columns(rows))
    for name, report in updated.reports.items():
        worst = report.worst
        judged = "has no golden samples" if worst is None else "computes what the evaluator does"
        lines.append(f"{mark(None if worst is None else True)} {clean(name)} {judged}")
    lines.append(f"wrote {path}, {size(path.stat().st_size)} ({seconds:.1f} s)")
    return "\n".join(lines)


def to_json(updated: Updated) -> dict[str, Any]:
    """The same as plain values."""

    def told(engines: Any) -> list[dict[str, str]]:
        return [
            {"target": target, "segment": segment, "reason": reason}
            for (target, segment), reason in engines.items()
        ]

    return {
        "output": str(updated.bundle.path),
        "digest": updated.bundle.digest,
        "changed": list(updated.changed),
        "derived": updated.derived,
        "kept": told(updated.kept),
        "dropped": told(updated.dropped),
        "proved": {
            name: [comparison.to_json() for comparison in report.comparisons]
            for name, report in updated.reports.items()
        },
    }
