# SPDX-License-Identifier: Apache-2.0
"""``trtpack resolve``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..bundle import open_bundle
from ..engine_store import EngineStore
from ..errors import BundleError
from ..own_engines import own_engines
from ..resolve import (
    Candidate,
    check_requirements,
    choose,
    missing_modules,
    untrusted_members,
)
from ..resolve import resolve as resolve_variants
from .text import columns, mark

EXAMPLES = """\b
Examples:
  trtpack resolve bundle.tar
  trtpack doctor --json > orin.json     # on the device
  trtpack resolve bundle.tar --facts orin.json
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--facts",
    "facts_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Decide for the machine these facts are of, as doctor --json prints them.",
)
@click.option("--trust", is_flag=True, help="As if machine code in the bundle were trusted.")
@click.option("--strict", is_flag=True, help="Fail where no engine fits.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
def resolve(
    bundle: Path, facts_file: Path | None, trust: bool, strict: bool, as_json: bool
) -> None:
    """Say which variant of BUNDLE fits this machine, and why the others do not.

    Nothing is loaded; neither PyTorch nor TensorRT is imported.
    """
    opened = open_bundle(bundle)
    here = _facts(facts_file)
    untrusted = () if trust or facts_file is not None else untrusted_members(opened)
    store = EngineStore() if facts_file is None else None
    own = own_engines(opened, here, store, untrusted)
    candidates = resolve_variants(opened.manifest, here, untrusted, own)
    modules = missing_modules(opened.manifest, ())
    error = None
    try:
        check_requirements(opened.manifest, here, modules)
        choice = choose(opened.manifest, candidates, here, strict=strict)
        chosen, degraded = choice.variant, choice.degraded
    except BundleError as refused:
        error, chosen, degraded = refused, None, False
    if as_json:
        found = {
            "chosen": chosen,
            "degraded": degraded,
            "imports": modules,
            "variants": [c.to_json() for c in candidates],
            "error": None if error is None else error.message,
        }
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        click.echo(columns(rows(candidates, chosen, degraded)))
        for name in modules:
            click.echo(f"run it with --import {name}, it uses operators of that module")
    if error is not None:
        raise error


def rows(
    candidates: Sequence[Candidate], chosen: str | None, degraded: bool
) -> list[tuple[str, ...]]:
    """A line for each variant: whether it is taken, its fit and the reason.

    The fit of one that is taken though its engines do not fit is ``portable``.
    """
    lines: list[tuple[str, ...]] = []
    for candidate in candidates:
        taken = candidate.variant == chosen
        verdict = candidate.verdict
        fit = "portable" if degraded and taken else verdict.fit
        lines.append((mark(taken or None), candidate.variant, fit, verdict.reason))
    return lines


def _facts(path: Path | None) -> dict[str, Any]:
    if path is not None:
        from ..facts_file import read_facts

        return read_facts(path)
    from ..device import facts

    return facts()
