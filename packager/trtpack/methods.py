# SPDX-License-Identifier: Apache-2.0
"""The methods of a model on their way through a build: each lowered, with what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from .accuracy.budgets import budgets_of
from .accuracy.gate import Gate, gate
from .capture import Captured
from .errors import ConfigError
from .golden import GoldenSample
from .lowering import Lowered
from .options import Options
from .output_names import output_names
from .precision.plan import Request
from .sources import Source
from .sources.methods import of_method


@dataclass(frozen=True)
class Prepared:
    """One method, lowered. ``options`` are those of the build that speak of it, ``tried`` is what
    the model answered when it was called first, with the example inputs."""

    source: Source
    tried: tuple[torch.Tensor, ...]
    lowered: Lowered
    request: Request | None
    options: Options

    @property
    def captured(self) -> Captured:
        """Its graph."""
        return self.lowered.captured

    @property
    def name(self) -> str:
        """The method's."""
        return self.captured.method

    def gate(self, golden: tuple[GoldenSample, ...]) -> Gate:
        """What a build of it is held to."""
        return gate(self.source, self.lowered, self.request, self.options, golden)


def check_methods(options: Options, sources: Sequence[Source]) -> None:
    """Refuses what a build can be asked of one method only.

    Raises:
        ConfigError: it names the flag and the methods.
    """
    if len(sources) == 1:
        return
    found = (
        ("--precision auto", options.precision == "auto"),
        ("--calibrate", options.calibrate is not None),
        ("--calibration-cache", options.calibration_cache is not None),
        ("--metric", options.metric is not None),
    )
    for flag, given in found:
        if given:
            raise ConfigError(
                f"{flag} is for a model of one method, and this one has "
                f"{', '.join(source.method for source in sources)}",
                hint="leave it away, or build the methods apart",
            )


def options_of_methods(options: Options, methods: Sequence[Captured]) -> tuple[Options, ...]:
    """The options of each method: only the profiles of its inputs, and budgets of its outputs.

    Raises:
        ConfigError: they are of none.
    """
    if len(methods) == 1:
        return (options,)
    names = [captured.method for captured in methods]
    outputs = [list(output_names(captured)) for captured in methods]
    budgets_of(options, list(dict.fromkeys(name for own in outputs for name in own)))
    return tuple(
        replace(
            options,
            profiles=tuple(
                own
                for profile in options.profiles
                if (own := of_method(profile, captured.method, names, "--profile"))
            ),
            budgets=tuple(b for b in options.budgets if b.output is None or b.output in had),
        )
        for captured, had in zip(methods, outputs, strict=True)
    )
