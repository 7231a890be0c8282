# SPDX-License-Identifier: Apache-2.0
"""The user's own metric: a function that takes a model and answers how good it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from trtpack_runtime.tf32 import full_float32

from ..errors import ConfigError, SourceError
from ..options import Budget, Drop
from ..sources.factory import named_object, origin_of, raised
from .budgets import digits, whole

_TOLD = {"what": "metric", "flag": "--metric", "hint": "write it as metrics.py:accuracy"}
_DIGITS = 6
_LEAST = 1e-30
"""What a model may lose is never taken as less."""

Run = Callable[..., Any]
"""The model, or the bundle in its place: it takes what the model takes and answers the same."""


@dataclass(frozen=True)
class Metric:
    """A metric, larger is better, and what the model itself has by it."""

    name: str
    function: Callable[[Run], Any] = field(repr=False)
    of_model: float

    def of(self, run: Run) -> float:
        """What a model has by the metric."""
        return _measured(self.name, self.function, run)


@dataclass(frozen=True)
class Held:
    """A metric, and how much of it there has to be."""

    metric: Metric
    drop: Drop | None = None
    budgets: tuple[Budget, ...] = ()

    def broken(self, value: float) -> str | None:
        """What a value of the metric breaks, as a clause; None where it keeps all."""
        return drop_text(self.metric, value, self.drop, list(self.budgets))

    def excess(self, value: float) -> float:
        """How far a value is too low, as a share of what the model may lose; 0 where it is not."""
        least = [budget.bound for budget in self.budgets]
        if self.drop is not None:
            least.append(self.metric.of_model - _most(self.metric, self.drop))
        return max((self._short(value, one) for one in least), default=0.0)

    @property
    def is_beyond(self) -> bool:
        """Whether not even the model itself has as much."""
        return any(budget.bound > self.metric.of_model for budget in self.budgets)

    def _short(self, value: float, least: float) -> float:
        may_lose = self.metric.of_model - least
        scale = may_lose if may_lose > 0 else abs(least)
        return max(0.0, least - value) / max(scale, _LEAST)


def load_metric(name: str, model: Run) -> Metric:
    """The metric of ``file.py:function`` or ``package.module:function``, and the model by it.

    Raises:
        SourceError: no such file, module or function, or it raises, with the user's line.
        ConfigError: it does not answer a finite number.
    """
    function = _found(name)
    return Metric(name, function, _measured(name, function, model))


def drop_text(metric: Metric, value: float, drop: Drop | None, budgets: list[Budget]) -> str | None:
    """What a value of the metric breaks, as a clause; None where it keeps all."""
    for budget in budgets:
        if value < budget.bound:
            return _short_text(metric, value, budget.bound)
    if drop is not None and metric.of_model - value > _most(metric, drop):
        return (
            f"{metric.name} drops from {metric.of_model:.6g} to {value:.6g}, at most {drop} "
            "is allowed"
        )
    return None


def _short_text(metric: Metric, value: float, least: float) -> str:
    def shown(number: float) -> str:
        return digits(number, lambda one: one >= least, _DIGITS)

    text = f"{metric.name} is {shown(value)}, at least {whole(least)} is wanted"
    if metric.of_model < least:
        text += f", and the model itself has only {shown(metric.of_model)}"
    return text


def _most(metric: Metric, drop: Drop) -> float:
    """What the metric may lose at most."""
    return abs(metric.of_model) * drop.amount if drop.relative else drop.amount


def check_metric(name: str) -> None:
    """Refuses what cannot be a metric, before a model is captured for it; imports nothing.

    Raises:
        SourceError: there is no such file.
        ConfigError: a text of another form.
    """
    origin_of(name, **_TOLD)


def _found(name: str) -> Callable[[Run], Any]:
    function: Callable[[Run], Any] = named_object(name, **_TOLD)
    if not callable(function):
        raise SourceError(f"{name} is no function", hint="let it be one that takes the model")
    return function


def _measured(name: str, function: Callable[[Run], Any], run: Run) -> float:
    try:
        with torch.no_grad(), full_float32():
            value = float(function(run))
    except (TypeError, ValueError) as error:
        raise raised(
            error, f"the metric {name}", hint="let it take the model and answer a number"
        ) from error
    except Exception as error:
        raise raised(error, f"the metric {name}") from error
    if not math.isfinite(value):
        raise ConfigError(
            f"the metric {name} answers {value}", hint="let it answer a finite number"
        )
    return value
