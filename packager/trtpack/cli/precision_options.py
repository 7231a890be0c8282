# SPDX-License-Identifier: Apache-2.0
"""The flags of ``trtpack build`` that say what operators compute in, and how right it has to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from trtpack_runtime.cli.sections import SectionOption

from ..accuracy.reading import parse_budget, parse_drop
from ..options import CALIBRATION_DEVICES, OBSERVER_NAMES, PIN_NAMES, PRECISION_NAMES, PRUNE_NAMES
from ..precision.names import parse_pin, parse_precision

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _option(*names: str, **settings: Any) -> Callable[[Decorated], Decorated]:
    return click.option(*names, cls=SectionOption, section="Precision options", **settings)


_PLAN: tuple[Callable[[Any], Any], ...] = (
    _option(
        "--precision",
        metavar="NAME",
        help=f"What operators compute in: {', '.join(PRECISION_NAMES)}. Inputs and outputs stay as "
        "they are.  [default: as the model has it]",
    ),
    _option(
        "--pin",
        "pins",
        multiple=True,
        metavar="PATTERN=NAME",
        help="Another precision for operators whose module path, name or operator the regular "
        f"expression matches, such as 'head.*=fp32': {', '.join(PIN_NAMES)}. The last that "
        "matches holds; repeat for more.",
    ),
    _option(
        "--calibrate",
        metavar="DATA",
        help="What int8 and fp8 find their scales with: data.py:loader, which is any iterable of "
        "inputs such as a DataLoader, or a folder of .npz, .safetensors or image files.",
    ),
    _option(
        "--observer",
        type=click.Choice(OBSERVER_NAMES),
        help="How a value's range is chosen.  [default: entropy for int8, minmax for fp8]",
    ),
    _option(
        "--calibration-samples",
        type=int,
        default=128,
        show_default=True,
        metavar="N",
        help="Take at most so many samples.",
    ),
    _option(
        "--calibration-cache",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Keep the ranges in this file, and take them from there where it is.",
    ),
    _option(
        "--calibrate-on",
        type=click.Choice(CALIBRATION_DEVICES),
        default="cpu",
        show_default=True,
        help="Where the model runs to be calibrated.",
    ),
    _option(
        "--weight-block",
        type=click.IntRange(1),
        metavar="N",
        help="How many weights of a row share a scale.  [default: 128 for int4, the whole row for "
        "int8-weights]",
    ),
)
_PRUNE = _option(
    "--prune",
    type=click.Choice(PRUNE_NAMES),
    help="Set the two smallest of every four weights to zero, for --sparse.",
)
_GATE: tuple[Callable[[Any], Any], ...] = (
    _option(
        "--budget",
        "budgets",
        multiple=True,
        metavar="BOUND",
        help="How near every output stays to the model's, such as 'cosine>=0.999', "
        "'rel_l2<=0.01', 'top1>=0.99', or of one output 'logits:max_abs<=0.1'; repeat for more.  "
        "[default: a cosine that fits the precision]",
    ),
    _option(
        "--metric",
        metavar="FILE:FUNCTION",
        help="A function of yours that takes the model and answers how good it is.",
    ),
    _option(
        "--max-drop",
        metavar="DROP",
        help="The most that metric may lose: 0.5% of what the model has, or an amount.",
    ),
)


def plan_options(command: Decorated) -> Decorated:
    """Adds the options of a precision plan to a command."""
    for decorate in reversed((*_PLAN, _PRUNE)):
        command = decorate(command)
    return command


def gate_options(command: Decorated) -> Decorated:
    """Adds the options of an accuracy budget to a command."""
    for decorate in reversed(_GATE):
        command = decorate(command)
    return command


def precision_settings(
    precision: str | None = None,
    pins: tuple[str, ...] = (),
    budgets: tuple[str, ...] = (),
    metric: str | None = None,
    max_drop: str | None = None,
) -> dict[str, Any]:
    """These flags as fields of ``Options``, each checked.

    Raises:
        ConfigError: what is wrong.
    """
    return {
        "precision": parse_precision(precision),
        "pins": tuple(map(parse_pin, pins)),
        "budgets": tuple(map(parse_budget, budgets)),
        "metric": metric,
        "max_drop": parse_drop(max_drop),
    }
