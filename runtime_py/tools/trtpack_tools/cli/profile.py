# SPDX-License-Identifier: Apache-2.0
"""``trtpack profile``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtpack_runtime.cli.group import naming_missing_modules
from trtpack_runtime.cli.loading_options import (
    device_flag,
    import_flag,
    no_build_flag,
    target_flag,
    trust_flag,
)
from trtpack_runtime.cli.text import clean, columns, plural, wrapped

from .engine_text import brief, origins_text
from .loading import loaded, method_flag

if TYPE_CHECKING:
    from ..profiling import LayerProfile, ModuleTime, Profile, SegmentProfile

EXAMPLES = """\b
Examples:
  trtpack profile bundle.tar
  trtpack profile bundle.tar --iterations 100 --depth 3
  trtpack profile bundle.tar --trace trace.json      # open it at ui.perfetto.dev
  trtpack profile bundle.tar --json | jq '.segments[0].layers[0]'
"""

_LONGEST_NAME = 56
_NOTHING = 1e-3
"""The part of the time that is not worth a line."""


@click.command(epilog=EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@target_flag
@method_flag
@device_flag
@trust_flag
@no_build_flag
@import_flag
@click.option(
    "--iterations", type=click.IntRange(1), default=20, show_default=True, help="Timed calls."
)
@click.option(
    "--warmup", type=click.IntRange(0), default=3, show_default=True, help="Untimed calls."
)
@click.option(
    "--depth",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="How many names deep modules are listed.",
)
@click.option("--top", type=click.IntRange(0), default=15, show_default=True, help="Layers listed.")
@click.option(
    "--trace",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a timeline for Perfetto or Chrome.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def profile(
    bundle: Path,
    target: str | None,
    method: str,
    device: str | None,
    trust: bool,
    no_build: bool,
    imports: tuple[str, ...],
    iterations: int,
    warmup: int,
    depth: int,
    top: int,
    trace: Path | None,
    as_json: bool,
) -> None:
    """Measure where the time of BUNDLE goes: every segment, layer and module of the model.

    The inputs are those of the first golden sample. Layers of TensorRT engines are timed by
    TensorRT itself, those of segments that PyTorch runs one by one; compiled segments are timed as
    a whole.
    """
    with naming_missing_modules("profile"):
        from trtpack_runtime.golden import sample_inputs

        from .. import profiling
        from .. import trace as traces

    module = loaded(
        bundle,
        device=device,
        target=target,
        trust=trust,
        no_build=no_build,
        imports=imports,
        quiet=as_json,
    )
    module.method(method)
    inputs = sample_inputs(module, method)
    found = profiling.profile(module, method, inputs, iterations=iterations, warmup=warmup)
    modules = profiling.by_module(found, depth)
    if trace is not None:
        traces.write(trace, f"{module.bundle.manifest.name} ({module.variant})", found.events)
    if as_json:
        about = {"bundle": str(bundle), "target": module.variant, "degraded": module.degraded}
        tree = [{"module": m.module, "ms": m.ms, "share": m.share} for m in modules]
        click.echo(json.dumps({**about, **found.to_json(), "modules": tree}, indent=2))
        return
    click.echo(f"{clean(module.bundle.manifest.name)}  ({bundle}, {clean(module.variant)})")
    if module.degraded:
        reason = module.choice.chosen.verdict.reason
        click.echo(wrapped(f"PyTorch runs its portable form, not its engines: {clean(reason)}"))
    for segment, reason in module.failed_engines.items():
        click.echo(wrapped(f"PyTorch runs {clean(segment)}, its engine failed: {clean(reason)}"))
    for part in _parts(found, modules, top):
        click.echo(part)
    if trace is not None:
        click.echo(f"\nwrote {trace}; open it at ui.perfetto.dev or chrome://tracing")


def _parts(found: Profile, modules: Sequence[ModuleTime], top: int) -> Iterator[str]:
    yield (
        f"{clean(found.method)}() on {found.device}: {_ms(found.call.p50_ms)} a call "
        f"(mean {_ms(found.call.mean_ms)}, {plural(found.iterations, 'call')})"
    )
    yield "\nsegments"
    header = ("", "engine", "median", "mean", "share", "")
    yield columns([header, *(_segment(segment) for segment in found.segments)])
    layers = [(s, layer) for s in found.segments for layer in s.layers]
    if modules:
        yield "\nmodules"
        yield columns(_modules(modules))
    if layers and top:
        ranked = sorted(layers, key=lambda pair: -pair[1].times.p50_ms)[:top]
        total = sum(layer.times.p50_ms for _, layer in layers)
        yield f"\nlayers ({len(ranked)} slowest of {len(layers)}, together {_ms(total)})"
        several = len({s.name for s, _ in layers}) > 1
        yield columns(
            [
                ("median", "mean", "share", "layer", "from"),
                *(_layer(s, layer, total, several) for s, layer in ranked),
            ]
        )


def _modules(modules: Sequence[ModuleTime]) -> Iterator[tuple[str, ...]]:
    for m in modules:
        name = m.module.rpartition(".")[2] or "(model)"
        yield "  " * m.depth + name, _ms(m.ms), _share(m.share)
    model = modules[0]
    rest = model.ms / model.share - model.ms if model.share else 0.0
    if rest > _NOTHING * model.ms:
        yield "(no module)", _ms(rest), _share(1 - model.share)


def _segment(segment: SegmentProfile) -> tuple[str, ...]:
    times = segment.times
    note = plural(len(segment.layers), "layer") if segment.layers else "timed as a whole"
    return (
        segment.name,
        segment.kind,
        _ms(times.p50_ms),
        _ms(times.mean_ms),
        _share(segment.share),
        note,
    )


def _layer(
    segment: SegmentProfile, layer: LayerProfile, total: float, several: bool
) -> tuple[str, ...]:
    times = layer.times
    prefix = f"{segment.name}: " if several else ""
    return (
        _ms(times.p50_ms),
        _ms(times.mean_ms),
        _share(times.p50_ms / total if total else 0.0),
        prefix + brief(layer.name, _LONGEST_NAME),
        origins_text(layer.origins),
    )


def _ms(value: float) -> str:
    return f"{value:.3f} ms" if value < 99.95 else f"{value:.1f} ms"


def _share(value: float) -> str:
    return f"{100 * value:5.1f} %"
