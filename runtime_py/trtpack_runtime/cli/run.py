# SPDX-License-Identifier: Apache-2.0
"""``trtpack run``."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, InputMismatchError
from . import run_text
from .group import naming_missing_modules

if TYPE_CHECKING:
    import torch

    from ..bench import Latency
    from ..module import BundleModule
    from ..smoke import SmokeReport

EXAMPLES = """\b
Examples:
  trtpack run bundle.tar
  trtpack run bundle.tar --target cpu --repeats 100
  trtpack run bundle.tar --input cat.jpg
  trtpack run bundle.tar --input ids=tokens.npz --output out.safetensors
  trtpack run bundle.tar --strict --json --junit report.xml
  trtpack run bundle.tar --no-build     # engines that are not built yet run in PyTorch
"""


@dataclass
class Results:
    """What a run found; None for what was not asked for."""

    module: BundleModule
    method: str
    load_seconds: float
    smoke: SmokeReport | None = None
    smoke_seconds: float = 0.0
    inputs: dict[str, torch.Tensor] | None = None
    outputs: dict[str, torch.Tensor] | None = None
    latency: Latency | None = None


@click.command(epilog=EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "inputs",
    metavar="[NAME=]FILE",
    multiple=True,
    help="An input: .safetensors, .npz, .npy or an image. Repeat for several.",
)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the outputs to this .safetensors or .npz file.",
)
@click.option("--method", default="forward", show_default=True, help="The method to call.")
@click.option("--target", metavar="NAME", help="Take this variant, not the best one.")
@click.option("--device", metavar="DEVICE", help="Run there: cpu, cuda, cuda:1.")
@click.option("--strict", is_flag=True, help="Fail rather than run in PyTorch what fits no engine.")
@click.option("--trust", is_flag=True, help="Load machine code that another machine built.")
@click.option(
    "--cuda-graphs", is_flag=True, help="Replay TensorRT engines as CUDA graphs: one launch a call."
)
@click.option(
    "--no-build", is_flag=True, help="Run in PyTorch what this device would have to build first."
)
@click.option("--rebuild", is_flag=True, help="Build this device's engines anew.")
@click.option(
    "--import",
    "imports",
    metavar="MODULE",
    multiple=True,
    help="Import a module that registers operators. Repeat for several.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads to use.")
@click.option(
    "--warmup", type=click.IntRange(0), default=3, show_default=True, help="Untimed calls."
)
@click.option(
    "--repeats", type=click.IntRange(1), default=30, show_default=True, help="Timed calls."
)
@click.option(
    "--budget",
    "budget_s",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=20.0,
    show_default=True,
    help="Stop timing after so long.",
)
@click.option("--no-smoke", is_flag=True, help="Leave out the golden samples.")
@click.option("--no-bench", is_flag=True, help="Leave out the latency.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--junit",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a JUnit XML report.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show every output and segment.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing unless it fails.")
def run(
    bundle: Path,
    inputs: tuple[str, ...],
    output: Path | None,
    method: str,
    target: str | None,
    device: str | None,
    strict: bool,
    trust: bool,
    cuda_graphs: bool,
    no_build: bool,
    rebuild: bool,
    imports: tuple[str, ...],
    threads: int | None,
    warmup: int,
    repeats: int,
    budget_s: float,
    no_smoke: bool,
    no_bench: bool,
    as_json: bool,
    junit: Path | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Prove BUNDLE on this machine and measure it.

    Loads the variant that fits best and says why the others do not, replays the golden samples, and
    times calls with the inputs given, or those of the first golden sample. Exit code 7 where an
    output is wrong.

    Engines that the bundle leaves to this device are built at the first run and kept for the next.
    """
    if no_build and rebuild:
        raise ConfigError("--rebuild and --no-build contradict each other", hint="give one of them")
    with naming_missing_modules("run"):
        import torch

    from ..input_check import check_inputs
    from ..samples import check_output_path, read_inputs, wanted_inputs, write_outputs

    if output is not None:
        check_output_path(output)
    if threads is not None:
        torch.set_num_threads(threads)
    say = (lambda text: None) if quiet or as_json else click.echo
    results = _load(
        bundle,
        method,
        quiet=quiet,
        device=device,
        target=target,
        strict=strict,
        trust=trust,
        cuda_graphs=cuda_graphs,
        imports=imports,
        build=not no_build,
        rebuild=rebuild,
    )
    module = results.module
    say(run_text.loaded(results, verbose))
    described = module.bundle.manifest.methods[method]
    if inputs:
        given = read_inputs(inputs, wanted_inputs(described), module.bundle.manifest.metadata)
        missing = [spec.name for spec in described.inputs if spec.name not in given]
        if missing:
            raise InputMismatchError(
                f"input {missing[0]!r} is not given", hint=f"add --input {missing[0]}=FILE"
            )
        results.inputs = {s.name: given[s.name].to(module.device) for s in described.inputs}
        check_inputs(described.inputs, list(results.inputs.values()), module.device)
    else:
        results.inputs = _own_inputs(module, method)
    if not no_smoke:
        start = time.perf_counter()
        results.smoke = module.smoke(method)
        results.smoke_seconds = time.perf_counter() - start
        say(run_text.smoke(results.smoke, verbose))
    if inputs or output is not None:
        module.reset()
        values = module.run(method, list(results.inputs.values()))
        names = [spec.name for spec in described.outputs]
        results.outputs = dict(zip(names, values, strict=True))
        say(run_text.outputs(results, verbose))
    if output is not None:
        write_outputs(output, results.outputs or {})
        say(f"\nwrote {output}")
    if not no_bench:
        results.latency = _measure(results, warmup, repeats, budget_s)
        say(run_text.latency(results))
    if as_json:
        click.echo(json.dumps(run_text.to_json(results), indent=2, ensure_ascii=False))
    if junit is not None:
        from ..junit import write

        write(junit, f"trtpack run {bundle.name}", list(run_text.junit_cases(results)))
    if results.smoke is not None:
        results.smoke.raise_for_failure()


def _load(bundle: Path, method: str, *, quiet: bool, **options: Any) -> Results:
    from ..loading import DegradedWarning, load
    from .building import BuildLine

    start = time.perf_counter()
    with warnings.catch_warnings(), BuildLine(quiet=quiet) as line:
        warnings.simplefilter("ignore", DegradedWarning)  # told in words below
        module = load(bundle, on_progress=line, **options)
    module.method(method)
    return Results(module, method, time.perf_counter() - start)


def _own_inputs(module: BundleModule, method: str) -> dict[str, torch.Tensor]:
    """The inputs of the first golden sample, else zeros of the best shapes, by name."""
    from ..golden import sample_inputs

    described = module.bundle.manifest.methods[method].inputs
    values = sample_inputs(module, method)
    return {spec.name: value for spec, value in zip(described, values, strict=True)}


def _measure(results: Results, warmup: int, repeats: int, budget_s: float) -> Latency:
    import torch

    from ..bench import measure

    module, inputs = results.module, list((results.inputs or {}).values())
    wait = torch.cuda.synchronize if module.device.type == "cuda" else None
    module.reset()
    with torch.inference_mode():
        latency = measure(
            lambda: module.run(results.method, inputs),
            warmup=warmup,
            repeats=repeats,
            budget_s=budget_s,
            items_per_call=next(_batches(results), 1),
            synchronize=wait,
        )
    module.reset()
    return latency


def _batches(results: Results) -> Iterator[int]:
    """The first size of every input that has one and may vary or is larger than one."""
    described: Any = results.module.bundle.manifest.methods[results.method]
    for spec in described.inputs:
        value = (results.inputs or {})[spec.name]
        if value.dim() > 1:
            yield int(value.shape[0])
