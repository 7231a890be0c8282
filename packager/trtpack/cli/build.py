# SPDX-License-Identifier: Apache-2.0
"""``trtpack build``: a model into one bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from trtpack_runtime.cli.finite import FiniteRange
from trtpack_runtime.cli.sections import SectionedCommand

from ..errors import ConfigError
from ..inputs import parse_inputs, parse_profile, parse_size
from ..metadata import read_metadata
from ..options import DTYPE_NAMES, Options
from ..report import BuildReport
from .engine_options import engine_options
from .matrix_options import matrix_of, matrix_options
from .partition_options import measure_option, partition_options
from .precision_options import gate_options, plan_options, precision_settings
from .remote_options import remote_options
from .tuning_options import tuning_options

Command = TypeVar("Command", bound=Callable[..., Any])

EXAMPLES = """\b
Examples:
  trtpack build torchvision:resnet18 -t cpu -t rtx-4090 -t orin -o resnet18.tar
  trtpack build model.py:make_model --weights model.safetensors -t orin
  trtpack build timm:vit_small_patch16_224 -t thor --dtype float16 --input x=1/4/8x3x224x224
  trtpack build hf:./bert-base -t rtx-4090 --input input_ids=1x128 --input attention_mask=1x128
  trtpack build exported.pt2 -t orin --dry-run
  trtpack build model.py:make_model -t native --input x=1/8/32x3x224x224 --profile x=1x3x224x224
  trtpack build torchvision:resnet18 -t orin --on ssh://user@orin -o resnet18.tar
  trtpack build --matrix matrix.toml -o bundles --jobs 4

\b
MODEL is one of
  file.py:factory          a function of yours; it returns a module, (module, inputs)
  package.module:factory   or (module, args, kwargs)
  FILE.pt2                 what torch.export.save wrote
  torchvision:NAME, timm:NAME
  hf:DIR                   a local folder of transformers

\b
SPEC of --input is [NAME=]SHAPE[:TYPE[[LOW,HIGH]]] or a file of real samples:
  1x3x224x224:float16      by position
  ids=1x128:int64[0,30522] by name, whole numbers below 30522
  x=1/4/8x3x224x224        a dynamic dimension: minimum/optimum/maximum
  x=[batch=1/4/8]x3        the same, named: dimensions of one name are equal
  @samples.npz             .safetensors, .npz, .npy or a folder; 0.x, 1.x are samples of x

\b
SPEC of --profile is NAME=SHAPE of the inputs it narrows, between semicolons:
  'ids=1/8/16x128;mask=1/8/16x128'
"""

_FILE = click.Path()


def _complete_model(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The shell's own file names, and the words that stand before a name."""
    words = [word for word in ("torchvision:", "timm:", "hf:") if word.startswith(incomplete)]
    return [*map(CompletionItem, words), CompletionItem(incomplete, type="file")]


def _complete_target(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    from ..target import AUTO, NATIVE, catalogue

    known = (AUTO, NATIVE, *catalogue().spellings)
    return sorted(name for name in known if name.startswith(incomplete))


converters_option = click.option(
    "--converters",
    multiple=True,
    metavar="MODULE",
    help="A Python module, or a .py file, that registers converters; repeat for more.",
)


def model_argument(*, required: bool) -> Callable[[Command], Command]:
    """The MODEL argument."""
    return click.argument("model", required=required, shell_complete=_complete_model)


def model_options(command: Command) -> Command:
    """The options that ``build`` and ``explain`` share."""
    for decorate in reversed(
        (
            click.option(
                "-t",
                "--target",
                "targets",
                multiple=True,
                shell_complete=_complete_target,
                metavar="NAME",
                help="A device to build for, also NAME@STACK, a file of your own, native for this "
                "machine's own GPU, or auto for that or its CPU; repeat for more. See: trtpack "
                "targets",
            ),
            click.option(
                "-i",
                "--input",
                "inputs",
                multiple=True,
                metavar="SPEC",
                help="One model input, see below; repeat for more.",
            ),
            click.option(
                "--weights", type=_FILE, metavar="FILE", help="A .safetensors, .pt or .pth file."
            ),
            click.option(
                "--dtype",
                type=click.Choice(DTYPE_NAMES),
                help="Convert the model itself to this type, inputs and outputs too; see "
                "--precision.  [default: as it is]",
            ),
            plan_options,
            click.option(
                "--seed",
                type=click.IntRange(0),
                default=0,
                show_default=True,
                help="For random weights and inputs.",
            ),
            click.option(
                "--liven",
                is_flag=True,
                help="Draw random weights again, so that outputs depend on inputs.",
            ),
            partition_options,
            converters_option,
            click.option(
                "--strict", is_flag=True, help="Fail where TensorRT cannot take an operator."
            ),
            click.option(
                "--strict-dtypes",
                is_flag=True,
                help="Keep float64, which TensorRT lacks, instead of computing in float32.",
            ),
            click.option("-v", "--verbose", count=True, help="Say more; twice for everything."),
            click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
            click.option(
                "--log-file",
                type=_FILE,
                metavar="FILE",
                help="Keep all messages there, TensorRT's too.",
            ),
        )
    ):
        command = decorate(command)
    return command


@click.command(cls=SectionedCommand, epilog=EXAMPLES)
@model_argument(required=False)
@click.option(
    "-o",
    "--output",
    type=_FILE,
    metavar="FILE",
    default="bundle.tar",
    show_default=True,
    help="The bundle to write; with --matrix the folder of all.  [there: bundles]",
)
@model_options
@click.option(
    "--samples",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Golden samples to store, where --input gives no real ones.",
)
@click.option(
    "--meta",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="JSON that travels in the bundle: labels, preprocess, anything. Repeat for more.",
)
@click.option(
    "--max-latency-ms",
    metavar="MS",
    type=FiniteRange(0, min_open=True),
    help="trtpack run is to fail where a call takes longer on the device (99 of 100 calls).",
)
@click.option(
    "--max-memory-mb",
    metavar="MB",
    type=FiniteRange(0, min_open=True),
    help="trtpack run is to fail where more memory is taken.",
)
@click.option(
    "--with-runtime",
    is_flag=True,
    help="Put the wheels of trtpack-runtime and click into the bundle, for a device that has no "
    "network.",
)
@click.option("--dry-run", is_flag=True, help="Stop before engines and print the plan.")
@click.option("--report", type=_FILE, metavar="FILE", help="Also write the build report as JSON.")
@measure_option
@gate_options
@engine_options
@tuning_options
@remote_options
@matrix_options
def build(model: str | None, **arguments: Any) -> None:
    """Build MODEL for each target into one bundle that `trtpack run` runs there.

    With --matrix, build every cell of a file of models by targets: a bundle each, here in processes
    or with --farm on the machines of a build farm.
    """
    file, arguments = matrix_of(model, arguments)
    if file is not None:
        from .build_matrix import run_matrix

        run_matrix(file, **arguments)
        return
    assert model is not None
    run_build(model, **arguments)


def run_build(
    model: str, *, verbose: int, quiet: bool, log_file: str | None, **arguments: Any
) -> None:
    """Checks everything that can be checked at once, builds, prints the report.

    Raises:
        TrtpackError: what is wrong, before any file is written.
    """
    from ..api.settings import check_files, check_together

    options = options_of(**arguments)
    check_together(options)
    check_files(options)

    from ..early import early_start
    from .logs import logging_to
    from .progress import LiveProgress, progress_for

    progress = progress_for(quiet=quiet)
    say = progress.say if isinstance(progress, LiveProgress) else None
    with logging_to(-1 if quiet else verbose, Path(log_file) if log_file else None, say):
        with early_start(options) if options.on is None else nullcontext():
            with progress.step("start PyTorch"):
                from ..pipeline import build as build_bundle

            made = build_bundle(model, options, progress)
        made = dataclasses.replace(made, steps=tuple(progress.times))
    _tell(made, options, quiet)


def options_of(
    *,
    targets: tuple[str, ...],
    inputs: tuple[str, ...],
    weights: str | None,
    torch_ops: tuple[str, ...],
    output: str = "bundle.tar",
    workspace: str | None = None,
    profiles: tuple[str, ...] = (),
    tactics: str | None = None,
    meta: tuple[str, ...] = (),
    report: str | None = None,
    precision: str | None = None,
    pins: tuple[str, ...] = (),
    budgets: tuple[str, ...] = (),
    metric: str | None = None,
    max_drop: str | None = None,
    **settings: Any,
) -> Options:
    """The settings of a build from what the command line gave, each checked.

    Raises:
        ConfigError: what is wrong.
    """
    if not targets:
        raise ConfigError(
            "no target is given", hint="add one, for example -t cpu; see: trtpack targets"
        )
    if settings.get("on") is not None:
        from ..remote.address import check_on

        check_on(settings["on"], targets)
    options = Options(
        targets=_targets(targets, settings.get("engine")),
        output=Path(output),
        inputs=parse_inputs(inputs),
        weights=Path(weights) if weights else None,
        torch_ops=torch_ops,
        workspace_bytes=parse_size(workspace) if workspace else None,
        profiles=tuple(map(parse_profile, profiles)),
        tactics=Path(tactics) if tactics else None,
        metadata=read_metadata(map(Path, meta)),
        report=Path(report) if report else None,
        **precision_settings(precision, pins, budgets, metric, max_drop),
        **settings,
    )
    if options.weights is not None and not options.weights.is_file():
        raise ConfigError(
            f"there is no weights file {options.weights}", hint="check the path after --weights"
        )
    if options.tactics is not None and not options.tactics.is_file():
        raise ConfigError(
            f"there is no file {options.tactics}", hint="check the path after --tactics"
        )
    return options


def _targets(names: tuple[str, ...], engine: str | None) -> tuple[str, ...]:
    """The names without repetition, each checked; a file's as it was given.

    Raises:
        ConfigError: an unknown target, two names of one target, or one name of two.
    """
    from ..target import find_target, is_user_file

    found: dict[str, tuple[str, str]] = {}
    for name in names:
        target = find_target(name, engine)
        asked = name.strip() if is_user_file(name.partition("@")[0]) else target.name
        if found.setdefault(target.key, (asked, target.name)) != (asked, target.name):
            raise ConfigError(
                f"{found[target.key][0]} and {asked} are one target",
                hint=f"keep -t {found[target.key][0]}",
            )
    called = [name for _, name in found.values()]
    for name in called:
        if called.count(name) > 1:
            raise ConfigError(
                f"two targets are called {name}", hint="give one of the files another name"
            )
    return tuple(asked for asked, _ in found.values())


def _tell(report: BuildReport, options: Options, quiet: bool) -> None:
    if options.report is not None:
        from ..api.bundle import write_report

        write_report(report, options.report)
    if not quiet:
        click.echo(report.to_text(), nl=False)
