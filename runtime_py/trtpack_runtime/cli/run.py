# SPDX-License-Identifier: Apache-2.0
"""``trtpack run``."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..bench import Plan
from ..errors import ConfigError
from ..limits import FIGURE, FIGURES
from ..manifest import Limits
from . import run_text
from .device_options import device_option, lease_timeout, ssh_option
from .failures import DEGRADED
from .finite import FiniteRange
from .loading_options import device_flag, import_flag, no_build_flag, target_flag, trust_flag
from .run_steps import Settings, run_steps
from .run_subject import Subject
from .sections import SectionedCommand, SectionOption

EXAMPLES = """\b
Examples:
  trtpack run bundle.tar
  trtpack run bundle.tar --target cpu --repeats 100
  trtpack run bundle.tar --input cat.jpg
  trtpack run bundle.tar --input ids=tokens.npz --output out.safetensors
  trtpack run bundle.tar --strict --json --junit report.xml
  trtpack run bundle.tar --no-build     # engines that are not built yet run in PyTorch
  trtpack run bundle.tar --no-torch     # on TensorRT alone, as where PyTorch is not installed
  trtpack run bundle.tar --max-latency-ms 33 --max-memory-mb 500
  trtpack run bundle.tar --on ssh://user@orin --junit report.xml
  trtpack run bundle.tar --json > before.json; trtpack run bundle.tar --against before.json
"""


class Percent(click.ParamType[float]):
    """``5%`` or ``5`` as 0.05."""

    name = "percent"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The part; fails where it is no number from 0."""
        try:
            part = float(str(value).removesuffix("%")) / 100
        except ValueError:
            part = -1.0
        if not 0 <= part < float("inf"):
            self.fail(f"{value!r} is no percentage such as 5%", param, ctx)
        return part


def _in(section: str) -> Any:
    return partial(click.option, cls=SectionOption, section=section)


_measuring, _judging, _report = map(_in, ("Measuring", "Judging", "Report"))


@click.command(cls=SectionedCommand, epilog=EXAMPLES)
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
@click.option(
    "--method",
    "methods",
    metavar="NAME",
    multiple=True,
    help="Only this method; repeat for more.  [default: all]",
)
@target_flag
@device_flag
@click.option("--strict", is_flag=True, help="Fail rather than run in PyTorch what fits no engine.")
@trust_flag
@click.option(
    "--cuda-graphs", is_flag=True, help="Replay TensorRT engines as CUDA graphs: one launch a call."
)
@no_build_flag
@click.option("--rebuild", is_flag=True, help="Build this device's engines anew.")
@click.option(
    "--verify",
    type=click.Choice(("lazy", "full")),
    default="lazy",
    show_default=True,
    help="Compare the digests of what is used, or of the whole bundle before anything else.",
)
@click.option(
    "--start",
    type=click.Choice(("full", "fast")),
    default="full",
    show_default=True,
    help="With fast, PyTorch answers while the engines load; what is measured are the engines.",
)
@click.option("--no-memory-check", is_flag=True, help="Load also what will hardly fit.")
@import_flag
@click.option(
    "--no-torch",
    is_flag=True,
    help="Run without PyTorch, as a machine that lacks it does: on TensorRT alone.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads to use.")
@_measuring(
    "--warmup",
    type=click.IntRange(0),
    help="Untimed calls.  [default: until their times settle, 5 s at most]",
)
@_measuring(
    "--repeats",
    type=click.IntRange(1),
    help="Timed calls.  [default: 30 to 300, as many as fit a second]",
)
@_measuring(
    "--budget",
    "budget_s",
    metavar="SECONDS",
    type=FiniteRange(0),
    default=20.0,
    show_default=True,
    help="Stop timing a method after so long.",
)
@_judging(
    "--max-latency-ms",
    metavar="MS",
    type=FiniteRange(0, min_open=True),
    help="Fail where a call takes longer.  [default: what the bundle says]",
)
@_judging(
    "--limit-percentile",
    "figure",
    type=click.Choice(FIGURES),
    default=FIGURE,
    show_default=True,
    help="Which of a call's times --max-latency-ms, or the bundle's limit, is for.",
)
@_judging(
    "--max-memory-mb",
    metavar="MB",
    type=FiniteRange(0, min_open=True),
    help="Fail where more memory is taken, of the GPU where one runs the model, else main memory."
    "  [default: what the bundle says]",
)
@_judging(
    "--against",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Compare with what --json printed before; fail where something got worse.",
)
@_judging(
    "--tolerate",
    "tolerance",
    metavar="PERCENT",
    type=Percent(),
    default="5%",
    show_default=True,
    help="How much slower and larger than --against it may be.",
)
@_measuring("--no-smoke", is_flag=True, help="Leave out the golden samples.")
@_measuring("--no-bench", is_flag=True, help="Leave out the latency.")
@_report("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@_report(
    "--junit",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a JUnit XML report.",
)
@_report("-v", "--verbose", is_flag=True, help="Show every output and segment.")
@_report("-q", "--quiet", is_flag=True, help="Print nothing unless it fails.")
@device_option(
    "--on",
    metavar="ADDRESS",
    help="Run there and say it here: ssh://user@host, ssh://host:2222, ssh://host/folder with "
    "room. Nothing is left there. Needs trtpack here, nothing of it there.",
)
@ssh_option
@device_option(
    "--remote-python",
    metavar="FILE",
    default="python3",
    show_default=True,
    help="The Python to start there.",
)
@lease_timeout
def run(
    bundle: Path,
    inputs: tuple[str, ...],
    output: Path | None,
    methods: tuple[str, ...],
    target: str | None,
    device: str | None,
    strict: bool,
    trust: bool,
    cuda_graphs: bool,
    no_build: bool,
    rebuild: bool,
    verify: str,
    start: str,
    no_memory_check: bool,
    imports: tuple[str, ...],
    no_torch: bool,
    threads: int | None,
    warmup: int | None,
    repeats: int | None,
    budget_s: float,
    max_latency_ms: float | None,
    figure: str,
    max_memory_mb: float | None,
    against: Path | None,
    tolerance: float,
    no_smoke: bool,
    no_bench: bool,
    as_json: bool,
    junit: Path | None,
    verbose: bool,
    quiet: bool,
    **elsewhere: Any,
) -> None:
    """Prove BUNDLE on this machine and measure it.

    Loads the variant that fits best and says why the others do not, replays the golden samples, and
    times calls with the inputs given, or those of the first golden sample. Exit code 7 where an
    output is wrong, a limit is exceeded, or something got worse than in the run of --against.

    An engine that cannot be built or loaded, or that computes something else, leaves its segment to
    PyTorch: exit code 8 where all is right then. With --strict it fails.

    Engines that the bundle leaves to this device are built at the first run and kept for the next.
    """
    if no_build and rebuild:
        raise ConfigError("--rebuild and --no-build contradict each other", hint="give one of them")
    if no_bench and max_latency_ms is not None:
        raise ConfigError(
            "--max-latency-ms needs the latency, which --no-bench leaves out",
            hint="give one of them",
        )
    if elsewhere["on"] is not None:
        from .run_elsewhere import run_elsewhere

        context = click.get_current_context()
        context.exit(run_elsewhere(context, {"bundle": bundle, **elsewhere}))
    settings = Settings(
        methods=methods,
        files=inputs,
        output=output,
        plan=None if no_bench else Plan(warmup, repeats, budget_s),
        smoke=not no_smoke,
        limits=Limits(max_latency_ms, max_memory_mb),
        figure=figure,
        against=against,
        tolerance=tolerance,
        verbose=verbose,
    )
    _check_places(output, junit)
    torch = None if no_torch else _torch()
    for option, given in (
        ("--threads", threads),
        ("--import", imports),
        ("--start fast", start == "fast"),
        ("--verify full", verify == "full"),
    ):
        if torch is None and given:
            raise ConfigError(f"{option} needs PyTorch", hint="leave it out, or install PyTorch")
    if torch is not None and threads is not None:
        torch.set_num_threads(threads)
    say = (lambda text: None) if quiet or as_json else _say
    facts, watch = _watched(device)
    try:
        began = time.perf_counter()
        with _build_line(quiet) as line:
            options: dict[str, Any] = {
                "device": device,
                "target": target,
                "trust": trust,
                "cuda_graphs": cuda_graphs or None,
                "build": not no_build,
                "rebuild": rebuild,
                "verify": verify,
                "check_memory": not no_memory_check,
            }
            if torch is None:
                from .run_session import SessionSubject

                subject: Subject = SessionSubject.load(bundle, line, methods, **options)
            else:
                from .run_torch import TorchSubject

                subject = TorchSubject.load(
                    bundle,
                    line,
                    strict=strict,
                    imports=imports,
                    start=start,
                    **options,
                )
        report = run_steps(subject, settings, watch, facts, time.perf_counter() - began, say)
    finally:
        watch.close()
    if report.passed:
        say(run_text.verdict(report))
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    if junit is not None:
        from ..junit import write
        from .run_cases import cases, properties

        write(junit, f"trtpack run {bundle.name}", list(cases(report)), properties(report))
    for failure in report.failures():
        raise failure
    if report.failed:
        click.get_current_context().exit(DEGRADED)


def _check_places(output: Path | None, junit: Path | None) -> None:
    """Refuses files that could not be written at the end, before any work starts."""
    from ..atomic import check_writable
    from ..sample_files import check_output_path

    if output is not None:
        check_output_path(output)
        check_writable(output, "--output")
    if junit is not None and (junit.is_dir() or not junit.exists()):  # else it is written in place
        check_writable(junit, "--junit")


def _torch() -> Any:
    """PyTorch, None where it is not installed."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    return torch


def _say(text: str) -> None:
    if text:
        click.echo(text)


def _build_line(quiet: bool) -> Any:
    from .building import BuildLine

    return BuildLine(quiet=quiet)


def _watched(device: str | None) -> tuple[dict[str, Any], Any]:
    """This machine's facts, and what watches the GPU that will run: before anything is loaded, so
    that all memory it takes is seen."""
    from ..device import facts
    from ..sensors import sensors_for
    from ..vitals import Watch

    here = facts()
    kind, _, number = (device or "").partition(":")
    gpus = {gpu["index"]: gpu for gpu in here["gpus"]}
    index = int(number) if number.isdigit() else 0
    gpu = gpus.get(index) if kind in ("", "cuda") else None
    shared = bool(gpu and (gpu["integrated"] or here["jetson"]))
    return here, Watch(sensors_for(None if gpu is None else index), shared=shared)
