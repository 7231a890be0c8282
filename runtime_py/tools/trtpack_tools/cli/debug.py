# SPDX-License-Identifier: Apache-2.0
"""``trtpack debug``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.cli.group import naming_missing_modules
from trtpack_runtime.cli.text import clean, columns, mark, plural, size, wrapped
from trtpack_runtime.errors import ConfigError

from .engine_text import brief

if TYPE_CHECKING:
    from trtpack_runtime.network import Network

    from ..debugging import Subject
    from ..layer_errors import AccuracyReport, LayerError
    from ..pinned import Pinned

EXAMPLES = """\b
Examples:
  trtpack debug accuracy bundle.tar
  trtpack debug accuracy bundle.tar --target h200 --segment forward_2 --sample 1
  trtpack debug accuracy bundle.tar --search
  trtpack debug accuracy bundle.tar --pin -o pinned.tar
  trtpack debug accuracy bundle.tar --simulate        # without a GPU
"""

_LONGEST_NAME, _SHOWN = 48, 12


@click.group(epilog=EXAMPLES)
def debug() -> None:
    """Find out why an engine does not compute what the model does."""


@debug.command(epilog=EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-t", "--target", metavar="NAME", help="The variant whose engine is wrong.")
@click.option("--segment", metavar="NAME", help="The segment, where there are several.")
@click.option(
    "--sample", type=click.IntRange(0), default=0, show_default=True, help="The golden sample."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    help="The relative error from which on a layer departs.  [default: by its type]",
)
@click.option(
    "--search", is_flag=True, help="Only look for the first layer that departs; fewer builds."
)
@click.option(
    "--own-types",
    is_flag=True,
    help="Compare with the network in its own types, not in FLOAT.",
)
@click.option(
    "--simulate",
    is_flag=True,
    help="Look at what PyTorch computes in the network's types, not at an engine. Needs no GPU.",
)
@click.option("--pin", is_flag=True, help="Have the suggested layers compute in FLOAT.")
@click.option(
    "--pin-layer",
    "pin_layers",
    metavar="LAYER",
    multiple=True,
    help="Have this layer compute in FLOAT too. Repeat for several.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The bundle to write with pins.",
)
@click.option("--all", "everything", is_flag=True, help="List every layer, not only the worst.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def accuracy(
    bundle: Path,
    target: str | None,
    segment: str | None,
    sample: int,
    tolerance: float | None,
    search: bool,
    own_types: bool,
    simulate: bool,
    pin: bool,
    pin_layers: tuple[str, ...],
    output: Path | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Compare a TensorRT engine of BUNDLE with the network it was built from, layer by layer.

    Names the first layer that departs, with its module and source line, and suggests which layers
    to compute in FLOAT; --pin writes a bundle where they do. Engines that show their inner tensors
    are built for it, which changes how TensorRT fuses: few tensors are looked at together, and
    --search looks at the fewest.
    """
    pins = pin or bool(pin_layers)
    if pins and output is None:
        raise ConfigError("--pin writes a new bundle", hint="name it with -o FILE")
    if output is not None and not pins:
        raise ConfigError("-o is for a bundle with pins", hint="add --pin, or leave it out")
    if simulate and own_types:
        raise ConfigError(
            "--simulate compares the network's types with FLOAT", hint="leave out --own-types"
        )
    with naming_missing_modules("debug accuracy"):
        import torch

    from trtpack_runtime.device import facts

    from ..accuracy import Expected, compare_all, evaluator
    from ..accuracy import search as search_first
    from ..debugging import check_builds_here, choose_segment, engine_probe, subject
    from ..precision_pins import pin as pinned_network

    opened = open_bundle(bundle)
    here = facts()
    found = choose_segment(opened, target, segment)
    if not simulate:
        check_builds_here(opened, found, here)
    device = torch.device("cpu" if simulate else "cuda")
    about = subject(opened, found, device, sample)
    network, stored = about.network, about.module.stored
    expected = Expected(network, stored, about.inputs, own_types=own_types)
    run = evaluator(network, stored, about.inputs) if simulate else engine_probe(about, here)
    compare = search_first if search else compare_all
    report = compare(network, expected, run, tolerance=tolerance, on_chunk=_progress(simulate))
    chosen = tuple(dict.fromkeys([*(report.pins if pin else ()), *pin_layers]))
    changed, written = None, None
    if chosen and output is not None:
        changed = pinned_network(network, chosen)
        written = _write(about, changed, chosen, output, here)
    gain = None if changed is None else _gain(about, changed, expected)
    too_large = [
        layer.name
        for layer in network.layers
        if layer.name in chosen and not expected.overflowing.isdisjoint(layer.outputs)
    ]
    if as_json:
        value = _to_json(bundle, about, report, chosen, too_large, written, gain)
        click.echo(json.dumps(value, indent=2))
        return
    how = "PyTorch in its own types" if simulate else f"engines by {found.kind}"
    against = "in its own types" if own_types else "in FLOAT"
    click.echo(f"{clean(str(found))}: {how} against the network {against}")
    for part in _parts(about, report, everything, pins):
        click.echo(part)
    if pins and not chosen:
        click.echo("nothing to pin, no bundle was written")
    if written is not None and gain is not None:
        click.echo(_told(written, chosen, too_large, gain))


def _progress(quiet: bool) -> Callable[[int, int], None] | None:
    if quiet or not sys.stderr.isatty():
        return None

    def show(number: int, count: int) -> None:
        of = f" of {count}" if count else ""
        click.echo(f"\rbuilding engine {number}{of} to look into\x1b[K", err=True, nl=False)

    return show


def _write(
    about: Subject,
    network: Network,
    pins: tuple[str, ...],
    output: Path,
    facts: Mapping[str, Any],
) -> Pinned:
    from ..pinned import write_pinned

    return write_pinned(about.module.bundle, about.found, network, pins, output, facts)


def _gain(about: Subject, changed: Network, expected: Any) -> tuple[float, float]:
    """The worst output's error in PyTorch, in the network's types: before and after pinning."""
    from ..accuracy import worst_output

    return (
        worst_output(about.network, about.network, about.module.stored, about.inputs, expected),
        worst_output(changed, about.network, about.module.stored, about.inputs, expected),
    )


def _parts(about: Subject, report: AccuracyReport, everything: bool, pins: bool) -> Iterator[str]:
    departing = [layer for layer in report.layers if layer.departs]
    total = plural(len(about.network.layers), "layer")
    yield (
        f"looked at {len(report.layers)} of {total} in {plural(report.chunks, 'run')}, "
        f"{len(departing)} depart"
    )
    shown = list(report.layers)
    if not everything and len(shown) > _SHOWN:
        must = {id(report.first)} if report.first else set()
        ranked = sorted(report.layers, key=lambda layer: -layer.error)
        kept = must | {id(layer) for layer in ranked[: _SHOWN - len(must)]}
        shown = [layer for layer in shown if id(layer) in kept]
    if shown:
        yield "\nlayers, in order" + (
            "" if len(shown) == len(report.layers) else f" (the worst {len(shown)}; see --all)"
        )
        header = ("", "layer", "type", "error", "own part", "cosine", "max abs", "from")
        yield columns([header, *(_row(layer, report) for layer in shown)])
    if report.unseen:
        yield wrapped(f"{plural(len(report.unseen), 'tensor')} could not be looked at")
    yield ""
    if report.first is None:
        yield (
            "every layer is within its tolerance"
            if not departing
            else wrapped(_only_tightened(departing[0]))
        )
        return
    first = report.first
    came = str(first.origin) or "unknown"
    yield f"first to depart: {clean(first.layer)} ({first.kind}), from {clean(came)}"
    yield f"  error {first.error:.3g}, tolerated {first.tolerance:g}"
    if first.gradual:
        yield wrapped(
            "  Most of the error comes from its operands: it adds up over many layers rather than "
            "beginning here."
        )
    if report.pins:
        yield "\nto compute in FLOAT" + ("" if pins else ", add --pin -o FILE")
        yield columns((layer,) for layer in report.pins)
    else:
        yield "It computes in FLOAT already, or in no floating-point numbers: no pin would help."


def _only_tightened(layer: LayerError) -> str:
    """Why no layer begins what departs: the first to depart reads what its own type would not
    tolerate, though the type of what it reads does."""
    return (
        f"{clean(layer.layer)} departs first, with an error of {layer.error:.3g} where "
        f"{layer.dtype.lower()} tolerates {layer.tolerance:g}; what it reads is off by up to "
        f"{layer.inherited or 0:.3g} already, which the type of that tolerates. Judge all types "
        "alike with --tolerance."
    )


def _row(layer: LayerError, report: AccuracyReport) -> tuple[str, ...]:
    sign = mark(False) if layer.departs else ""
    own = "" if layer.inherited is None else f"{layer.added:.2e}"
    return (
        ">" if layer is report.first else sign,
        brief(layer.tensor, _LONGEST_NAME),
        layer.dtype.lower(),
        f"{layer.error:.2e}",
        own,
        f"{layer.metrics.cosine:.6f}",
        f"{layer.metrics.max_abs:.2e}",
        str(layer.origin),
    )


def _told(
    written: Pinned, pins: tuple[str, ...], too_large: Sequence[str], gain: tuple[float, float]
) -> str:
    lines = [
        f"\nwrote {written.path}, {plural(len(pins), 'layer')} in FLOAT"
        + (f", {size(written.added_bytes)} of weights more" if written.added_bytes else ""),
        f"error of the worst output in PyTorch: {gain[0]:.3g} before, {gain[1]:.3g} after",
    ]
    if written.deferred is not None:
        lines.append(wrapped(f"The engine was not built here: {clean(written.deferred)}."))
    lines.append(f"prove it with: trtpack run {written.path}")
    if too_large:
        lines.append(
            f"a value overflows in {clean(too_large[0])}: where the model itself overflows, "
            "its golden answers do too and this run can fail"
        )
    return "\n".join(lines)


def _to_json(
    bundle: Path,
    about: Subject,
    report: AccuracyReport,
    pins: tuple[str, ...],
    too_large: Sequence[str],
    written: Pinned | None,
    gain: tuple[float, float] | None,
) -> dict[str, Any]:
    found = about.found
    value = {
        "bundle": str(bundle),
        "target": found.variant,
        "segment": found.name,
        "engine": found.kind,
        **report.to_json(),
    }
    if written is not None and gain is not None:
        value["written"] = {
            "path": str(written.path),
            "pins": list(pins),
            "overflowing": list(too_large),
            "deferred": written.deferred,
            "added_bytes": written.added_bytes,
            "error_before": repr(gain[0]) if gain[0] == float("inf") else gain[0],
            "error_after": repr(gain[1]) if gain[1] == float("inf") else gain[1],
        }
    return value
