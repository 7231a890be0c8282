# SPDX-License-Identifier: Apache-2.0
"""``trtpack finish``."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from ..bundle import open_bundle
from ..device import facts
from ..finish import Finished, Workshop
from ..finish_bundle import FinishedBundle, engine_member, finish_bundle
from .building import BuildLine
from .gpu_option import gpu_option
from .text import clean, columns, plural, size, wrapped

EXAMPLES = """\b
Examples:
  trtpack finish bundle.tar -o finished.tar
  trtpack finish bundle.tar -o bundle.tar --target orin-jp6.2
  trtpack finish bundle.tar -o finished.tar --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="Write the finished bundle here; it may be BUNDLE itself.",
)
@click.option("-t", "--target", metavar="NAME", help="Finish only this variant.")
@click.option("--rebuild", is_flag=True, help="Build engines anew that are there already.")
@gpu_option()
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing unless it fails.")
def finish(
    bundle: Path, output: Path, target: str | None, rebuild: bool, as_json: bool, quiet: bool
) -> None:
    """Build the engines that BUNDLE leaves to a device like this one, and write it with them.

    Other devices of the same kind use the finished bundle without building anything. Engines that
    this device has built before come from its store. Everything else in the bundle stays as it is.
    """
    began = time.perf_counter()
    opened = open_bundle(bundle)
    with tempfile.TemporaryDirectory(prefix="trtpack-", ignore_cleanup_errors=True) as scratch:
        with BuildLine(quiet=quiet) as line:
            shop = Workshop(facts(), Path(scratch), on_progress=line, rebuild=rebuild)
            finished = finish_bundle(opened, output, shop, target=target)
        seconds = time.perf_counter() - began
        if as_json:  # while what no store took is still there to be measured
            found = to_json(finished) | {"bundle": str(bundle), "seconds": round(seconds, 3)}
            click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        elif not quiet:
            click.echo(text(finished, seconds))


def text(finished: FinishedBundle, seconds: float) -> str:
    """What was built, what came from the store, what was left, with sizes and times."""
    path = finished.bundle.path
    lines = []
    for name, engines in finished.engines.items():
        rows = [(e.segment, size(e.nbytes), e.told) for e in engines]
        if name in finished.caches:
            rows.append(("tactics", size(finished.caches[name]), "for devices of this kind"))
        lines += [clean(name), columns(rows)]
    for name in finished.ready:
        lines.append(f"{clean(name)}: lacks no engine that a device builds")
    for name, segments in finished.uncompiled.items():
        for segment, why in segments.items():
            told = f"{name}: PyTorch runs {segment} uncompiled: {why}"
            lines.append(wrapped(clean(told)))
    for name, why in finished.skipped.items():
        lines.append(wrapped(clean(f"{name}: left as it is, cannot be built here: {why}")))
    count = sum(map(len, finished.engines.values()))
    lines.append(
        f"wrote {path} with {plural(count, 'engine')} built here, {size(path.stat().st_size)} "
        f"({seconds:.1f} s)"
    )
    return "\n".join(lines)


def to_json(finished: FinishedBundle) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "output": str(finished.bundle.path),
        "digest": finished.bundle.digest,
        "bytes": finished.bundle.path.stat().st_size,
        "engines": {
            name: [_engine(name, engine) for engine in engines]
            for name, engines in finished.engines.items()
        },
        "caches": dict(finished.caches),
        "ready": list(finished.ready),
        "skipped": dict(finished.skipped),
        "uncompiled": {name: dict(found) for name, found in finished.uncompiled.items()},
    }


def _engine(variant: str, engine: Finished) -> dict[str, Any]:
    return {
        "segment": engine.segment,
        "kind": engine.kind,
        "member": engine_member(variant, engine.segment, engine.kind),
        "bytes": engine.nbytes,
        "source": "store" if engine.cached else "built",
        "build_seconds": round(engine.seconds, 3),
    }
