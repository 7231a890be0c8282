# SPDX-License-Identifier: Apache-2.0
"""``trtpack resolve``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..bundle import Bundle, open_bundle
from ..engine_store import EngineStore
from ..errors import BundleError
from ..facts_file import read_facts
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
  trtpack resolve bundle.tar --facts orin.json --facts thor.json --strict     # a whole fleet
"""


@dataclass(frozen=True)
class Answer:
    """What a bundle is good for on one machine; ``chosen`` is None where ``error`` says why."""

    candidates: Sequence[Candidate]
    imports: Sequence[str]
    chosen: str | None
    degraded: bool
    error: BundleError | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "chosen": self.chosen,
            "degraded": self.degraded,
            "imports": list(self.imports),
            "variants": [c.to_json() for c in self.candidates],
            "error": None if self.error is None else self.error.message,
        }

    def text(self) -> str:
        """A line for each variant, then what else it takes to run one."""
        lines = [columns(rows(self.candidates, self.chosen, self.degraded))]
        for name in self.imports:
            lines.append(f"run it with --import {name}, it uses operators of that module")
        return "\n".join(lines)


@click.command(epilog=EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--facts",
    "facts_files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Decide for the machine these facts are of, as doctor --json prints them; repeat for "
    "more.",
)
@click.option("--trust", is_flag=True, help="As if machine code in the bundle were trusted.")
@click.option("--strict", is_flag=True, help="Fail where no engine fits.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
def resolve(
    bundle: Path, facts_files: tuple[Path, ...], trust: bool, strict: bool, as_json: bool
) -> None:
    """Say which variant of BUNDLE fits this machine, and why the others do not.

    Nothing is loaded; neither PyTorch nor TensorRT is imported.
    """
    opened = open_bundle(bundle)
    if not facts_files:
        found = answer(opened, _facts_of_this_machine(), here=True, trust=trust, strict=strict)
        click.echo(_json(found.to_json()) if as_json else found.text())
        if found.error is not None:
            raise found.error
        return
    machines = {path: read_facts(path) for path in facts_files}
    several = len(machines) > 1
    answers = {
        path: answer(opened, facts, here=False, trust=trust, strict=strict)
        for path, facts in machines.items()
    }
    if as_json:
        values = [{"facts": str(path), **found.to_json()} for path, found in answers.items()]
        click.echo(_json(values if several else values[0]))
    else:
        for path, found in answers.items():
            click.echo(f"{path}\n{found.text()}" if several else found.text())
    for path, found in answers.items():
        if found.error is not None:
            told = f"{path}: {found.error.message}" if several else found.error.message
            raise BundleError(told, hint=found.error.hint)


def answer(
    bundle: Bundle, facts: Mapping[str, Any], *, here: bool, trust: bool, strict: bool
) -> Answer:
    """What a bundle is good for on the machine of the facts, which is this one where ``here``."""
    untrusted = untrusted_members(bundle) if here and not trust else ()
    own = own_engines(bundle, facts, EngineStore() if here else None, untrusted)
    candidates = resolve_variants(bundle.manifest, facts, untrusted, own)
    modules = missing_modules(bundle.manifest, ())
    try:
        check_requirements(bundle.manifest, facts, modules)
        choice = choose(bundle.manifest, candidates, facts, strict=strict)
    except BundleError as error:
        return Answer(candidates, modules, None, False, error)
    return Answer(candidates, modules, choice.variant, choice.degraded, None)


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


def _facts_of_this_machine() -> dict[str, Any]:
    from ..device import facts

    return facts()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
