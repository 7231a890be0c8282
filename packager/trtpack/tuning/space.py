# SPDX-License-Identifier: Apache-2.0
"""What tuning may change: settings of a build by field, each with the values that are tried.

What the user has set stays as it is. Precisions are tried only where the user has said how right
the outputs have to be.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from ..engine_options import TENSORRT_KINDS, kind_for, workspace_bytes
from ..errors import ConfigError
from ..inputs import parse_profile
from ..options import DynamicDim, InputSpec, Options
from ..precision.names import IN_BLOCKS, check_precision
from ..target import Target

Settings = Mapping[str, Any]
"""Field of ``Options`` -> its value, where that is not what the user's own are."""

_CALIBRATED = ("int8", "fp8", "auto")
_FLAGS = {"workspace_bytes": "--workspace", "profiles": "--profile"}


@dataclass(frozen=True)
class Setting:
    """A field of ``Options``: its value as it is, and the ``others``, the most promising first."""

    name: str
    usual: Any
    others: tuple[Any, ...]

    @property
    def values(self) -> tuple[Any, ...]:
        """All of them, the usual one first."""
        return (self.usual, *self.others)


def space(options: Options, target: Target, cpus: int) -> tuple[Setting, ...]:
    """What may be changed for a target, on a machine of so many CPUs; they are tried alone in this
    order."""
    unset = {field.name: field.default for field in fields(Options)}
    found = []
    for name, values in _values(options, target, cpus):
        usual = getattr(options, name)
        others = tuple(value for value in values if value != usual)
        if usual == unset[name] and others:
            found.append(Setting(name, usual, others))
    return tuple(found)


def _values(options: Options, target: Target, cpus: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    kind = kind_for(options, target)
    if kind == "inductor":
        if target.sm is None:
            yield "freezing", (True,)
            yield "max_autotune", (True,)
            counts = {cpus // 2, cpus // 4, 1} - {0, cpus}
            yield "threads", tuple(sorted(counts, reverse=True))
        else:
            yield "max_autotune", (True,)
            yield "freezing", (True,)
    if kind in TENSORRT_KINDS:
        yield "cuda_graphs", (True,)  # its engine is there already
        yield "optimization_level", (4, 5, 2)
        usual = workspace_bytes(options, target)
        if usual is not None:
            yield "workspace_bytes", (usual // 8, usual * 3 // 2)
        yield "profiles", tuple(_profile_of_optimum(options))
        yield "min_block_size", (1, 5, 20)
    if options.budgets or options.metric is not None:
        yield "precision", tuple(_precisions(options, target))


def _profile_of_optimum(options: Options) -> Iterator[str]:
    """A profile of the optimum's sizes alone, beside that of the whole range, as ``--profile`` has
    it; nothing where no size is open, or an input has no name to say it by."""
    specs = [one for one in options.inputs if isinstance(one, InputSpec)]
    opened = [one for one in specs if any(isinstance(size, DynamicDim) for size in one.shape)]
    if opened and all(one.name for one in opened):
        yield ";".join(f"{one.name}={'x'.join(map(str, one.optimum))}" for one in opened)


def _precisions(options: Options, target: Target) -> Iterator[str]:
    on_gpu = kind_for(options, target) in TENSORRT_KINDS
    # a CPU only simulates what has few bits
    few_bits = ("tf32", "int8", "fp8", "int8-weights", "int4", "auto") if on_gpu else ()
    for name in ("mixed", "mixed-bf16", *few_bits):
        if name in _CALIBRATED and options.calibrate is None:
            continue
        try:
            check_precision(applied(options, {"precision": name}), [target])
        except ConfigError:
            continue
        yield name


def applied(options: Options, settings: Settings) -> Options:
    """The options with these settings; what only another precision needs is left out."""
    given = dict(settings)
    if isinstance(text := given.get("profiles"), str):
        given["profiles"] = (parse_profile(text),)
    chosen = replace(options, **given)
    if chosen.precision not in _CALIBRATED:
        chosen = replace(
            chosen, calibrate=None, calibration_cache=None, calibrate_on="cpu", observer=None
        )
    if chosen.precision not in IN_BLOCKS:
        chosen = replace(chosen, weight_block=None)
    return chosen


def combinations(settings: tuple[Setting, ...]) -> Iterator[dict[str, Any]]:
    """Every combination that there is, as settings; the first changes nothing."""
    for values in product(*(setting.values for setting in settings)):
        yield {s.name: value for s, value in zip(settings, values, strict=True) if value != s.usual}


def flags(settings: Settings) -> str:
    """``--freezing --threads 4``: what says the same on the command line."""
    parts = []
    for name, value in settings.items():
        flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
        if value is True:
            parts.append(flag)
        else:
            parts.append(shlex.join([flag, str(value)]))
    return " ".join(parts)
