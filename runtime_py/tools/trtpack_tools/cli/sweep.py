# SPDX-License-Identifier: Apache-2.0
"""``trtpack sweep``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtpack_runtime.cli.group import naming_missing_modules
from trtpack_runtime.cli.loading_options import (
    device_flag,
    import_flag,
    no_build_flag,
    trust_flag,
)
from trtpack_runtime.cli.text import clean, columns, size, wrapped
from trtpack_runtime.errors import ConfigError

from .loading import loaded, method_flag

if TYPE_CHECKING:
    from ..sweeping import Advice, Axis, Point

MODELS = "trtpack.models"
"""What makes a bundle of a MODEL: the packager's."""

EXAMPLES = """\b
Examples:
  trtpack sweep bundle.tar
  trtpack sweep bundle.tar --batch 1,2,4,8,16 --plot sweep.svg
  trtpack sweep bundle.tar --dim input_ids:1 --batch 64,128,256,512
  trtpack sweep bundle.tar --max-latency-ms 33 --json
  trtpack sweep torchvision:resnet18 --batch 1,2,4,8 --input 1x3x224x224 --target cpu
"""


class Sizes(click.ParamType[tuple[int, ...]]):
    """``1,2,4`` as whole numbers from 1."""

    name = "sizes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The sizes; fails where one is no number from 1."""
        if isinstance(value, tuple):
            return value
        parts = str(value).replace(" ", "").split(",")
        if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} are no sizes such as 1,2,4", param, ctx)
        return tuple(map(int, parts))


@click.command(epilog=EXAMPLES)
@click.argument("what", metavar="BUNDLE|MODEL")
@click.option(
    "--batch",
    "sizes",
    metavar="SIZES",
    type=Sizes(),
    default=(),
    help="Measure these sizes, such as 1,2,4.  [default: powers of two the bundle takes]",
)
@click.option(
    "--dim",
    metavar="INPUT:AXIS",
    help="Sweep this dimension.  [default: the first open one, at the front of an input]",
)
@method_flag
@click.option(
    "-t", "--target", metavar="NAME", help="Take this variant, or build the MODEL for it."
)
@device_flag
@click.option(
    "--input",
    "specs",
    metavar="SPEC",
    multiple=True,
    help="An input of the MODEL, as trtpack build takes it; its first dimension becomes open.",
)
@trust_flag
@click.option("--cuda-graphs", is_flag=True, help="Replay engines as CUDA graphs.")
@no_build_flag
@import_flag
@click.option("--threads", type=click.IntRange(1), help="CPU threads to use.")
@click.option(
    "--warmup",
    type=click.IntRange(0),
    help="Untimed calls of each size.  [default: until their times settle]",
)
@click.option(
    "--repeats", type=click.IntRange(1), help="Timed calls of each size.  [default: 30 to 300]"
)
@click.option(
    "--budget",
    "budget_s",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="Stop timing a size after so long.",
)
@click.option(
    "--max-latency-ms",
    metavar="MS",
    type=click.FloatRange(0, min_open=True),
    help="Say which size does the most within so long a call.",
)
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the curves: .svg, .png or .pdf.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def sweep(
    what: str,
    sizes: tuple[int, ...],
    dim: str | None,
    method: str,
    target: str | None,
    device: str | None,
    specs: tuple[str, ...],
    trust: bool,
    cuda_graphs: bool,
    no_build: bool,
    imports: tuple[str, ...],
    threads: int | None,
    warmup: int | None,
    repeats: int | None,
    budget_s: float,
    max_latency_ms: float | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure a bundle, or a model, at several batch sizes, and say which to build for.

    Prints latency, throughput and memory of every size, and marks the knee: the smallest size with
    90 % of the most items a second that any has. A MODEL is built for this machine first. Inputs
    are those of the first golden sample, their elements over and over.
    """
    from trtpack_runtime.bench import Plan

    from .. import sweep_plot

    if plot is not None:
        sweep_plot.check_plot(plot)
    with naming_missing_modules("sweep"):
        import torch

        from trtpack_runtime.free_memory import used_bytes

        from .. import sweeping
    if threads is not None:
        torch.set_num_threads(threads)
    with ExitStack() as stack:
        bundle = _bundle(what, specs, sizes, target, stack)
        on_gpu = torch.cuda.is_available() and device != "cpu"
        before = used_bytes(torch.device(device or "cuda")) if on_gpu else None
        module = loaded(
            bundle,
            device=device,
            target=target if bundle == Path(what) else None,
            trust=trust,
            no_build=no_build,
            imports=imports,
            quiet=as_json,
            cuda_graphs=cuda_graphs,
        )
        axis = sweeping.axis_of(module, method, dim)
        chosen = sweeping.sizes_of(axis, sizes)
        name, where = module.bundle.manifest.name, str(module.device)
        if not as_json:
            click.echo(f"{clean(name)}  ({what}, {clean(module.variant)} on {where})")
            if module.degraded:
                reason = module.choice.chosen.verdict.reason
                click.echo(wrapped(f"PyTorch runs what engines should: {clean(reason)}"))
        points = sweeping.sweep(
            module,
            method,
            axis,
            chosen,
            Plan(warmup, repeats, budget_s),
            before_bytes=before,
            on_point=None if as_json else _told,
        )
        inputs = module.bundle.manifest.methods[method].inputs
        advice = sweeping.advise(points, inputs, axis, max_latency_ms)
    if advice is not None and plot is not None:
        sweep_plot.draw(plot, f"{name}: {module.variant} on {where}", str(axis), points, advice)
    if as_json:
        found = {
            "schema": "trtpack.sweep/1",
            "bundle": what,
            "target": module.variant,
            "device": where,
            "degraded": module.degraded,
            "method": method,
            "dim": str(axis),
            "points": [point.to_json() for point in points],
            "advice": None if advice is None else advice.to_json(),
        }
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for text in _parts(points, axis, advice, max_latency_ms):
        click.echo(text)
    if plot is not None and advice is not None:
        click.echo(f"\nwrote {plot}")


def _bundle(
    what: str,
    specs: Sequence[str],
    sizes: Sequence[int],
    target: str | None,
    stack: ExitStack,
) -> Path:
    """The bundle that was named, or one that is built of the model that was."""
    path = Path(what)
    if path.suffix == ".tar" or (path.is_file() and path.suffix not in (".pt2", ".py")):
        if specs:
            raise ConfigError(
                "--input is for a model, a bundle has its own", hint="leave --input away"
            )
        return path
    point = next(iter(entry_points(group=MODELS)), None)
    if point is None:
        raise ConfigError(
            f"{what} is no bundle, and nothing here builds models",
            hint="name a bundle, or install what builds: pip install trtpack",
        )
    click.echo(f"building {what} for {target or 'this machine'}", err=True)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="trtpack-sweep-"))
    built: Path = point.load()(what, specs, sizes, target, Path(folder))
    return built


def _told(point: Point) -> None:
    """A point as soon as it is known, for who waits."""
    if point.failed is None:
        click.echo(f"  {point.size}: {point.ms:.3g} ms", err=True)


def _parts(
    points: Sequence[Point], axis: Axis, advice: Advice | None, max_latency_ms: float | None
) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [
        (str(axis), "p50 ms", "p99 ms", "ms an item", "items/s", "memory", "")
    ]
    for point in points:
        if point.bench is None:
            rows.append((str(point.size), "", "", "", "", "", clean(str(point.failed))))
            continue
        wall = point.bench.wall
        rows.append(
            (
                str(point.size),
                f"{wall.p50_ms:.3f}",
                f"{wall.p99_ms:.3f}",
                f"{wall.p50_ms / point.size:.3f}",
                f"{point.per_second:.1f}",
                "" if point.memory_bytes is None else size(point.memory_bytes),
                "<- knee" if advice is not None and point.size == advice.knee else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    aligned = [
        (*(cell.rjust(w) for cell, w in zip(row[:6], widths, strict=True)), row[6]) for row in rows
    ]
    yield columns(aligned)
    if advice is None:
        yield "nothing could be measured"
        return
    yield ""
    share = "the most" if advice.knee == advice.most else f"90 % of those of {advice.most}"
    larger = any(point.bench is not None and point.size > advice.knee for point in points)
    end = "" if larger else "; none larger was measured"
    yield wrapped(f"knee: {advice.knee}, the smallest size with {share} items a second{end}")
    if max_latency_ms is not None:
        found = "no size" if advice.within is None else str(advice.within)
        yield wrapped(f"most within {max_latency_ms:g} ms a call: {found}")
    yield "build with"
    arguments = [f"--input '{text}'" for text in advice.inputs]
    yield "\n".join(f"  {argument}" for argument in arguments)
    for text in advice.profiles:
        yield f"  --profile '{text}'    # a TensorRT profile for what comes alone"
