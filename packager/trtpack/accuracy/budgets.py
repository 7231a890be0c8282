# SPDX-License-Identifier: Apache-2.0
"""Bounds on how far a build may be from the model: by default, and held."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..errors import ConfigError
from ..options import AT_MOST, Budget, Options
from .figures import Figures

_DEFAULT = {"fp16": 0.999, "mixed": 0.999, "bf16": 0.99, "mixed-bf16": 0.99, "tf32": 0.9999}
_PRUNED = 0.95
_DEFAULT |= {"auto": 0.999, "int8": 0.99, "fp8": 0.99, "int8-weights": 0.999, "int4": 0.98}
"""The cosine similarity that every output keeps where no budget is given."""
_LEAST = 1e-30
"""The least by which a miss is one, and the least error that misses are shares of."""
_MOST_DIGITS = 17
"""So many tell one float64 from the next."""


def budgets_of(options: Options, names: Sequence[str]) -> tuple[Budget, ...]:
    """What the outputs are held to: the budgets given, else the precision's own.

    Raises:
        ConfigError: a budget of an output that the model does not have.
    """
    given = tuple(budget for budget in options.budgets if budget.figure != "metric")
    for budget in given:
        if budget.output is not None and budget.output not in names:
            raise ConfigError(
                f"--budget '{budget}' is of an output that the model does not have",
                hint=f"its outputs are {', '.join(names)}",
            )
    if given or options.metric is not None:
        return given
    default = _DEFAULT.get(options.precision or "")
    if options.prune is not None:
        default = _PRUNED
    return (Budget("cosine", default),) if default is not None else ()


def bounds(budgets: Iterable[Budget], output: str) -> list[Budget]:
    """The budgets that one output is held to: those of its own figure by figure, else all's."""
    found: dict[str, Budget] = {}
    for budget in budgets:
        own = budget.output == output
        before = found.get(budget.figure)
        if own or (budget.output is None and (before is None or before.output is None)):
            found[budget.figure] = budget
    return list(found.values())


def missed(
    budgets: Iterable[Budget], figures: Iterable[Figures]
) -> Iterator[tuple[Figures, Budget]]:
    """Every output that does not keep a budget; a figure that it does not have is kept."""
    budgets = tuple(budgets)
    for one in figures:
        for budget in bounds(budgets, one.output):
            value = one.value(budget.figure)
            if value is not None and not kept(budget, value):
                yield one, budget


def kept(budget: Budget, value: float) -> bool:
    """Whether a figure is within its bound."""
    return value <= budget.bound if budget.figure in AT_MOST else value >= budget.bound


def excess(figures: Figures, budget: Budget) -> float:
    """How far an output misses a budget, as a share of the error that it allows; 0 where it keeps
    it. The error of a figure that is to be large is what it lacks to 1."""
    value = figures.value(budget.figure)
    if value is None or kept(budget, value):
        return 0.0
    error, most = value, budget.bound
    if budget.figure not in AT_MOST:
        error, most = 1 - value, 1 - budget.bound
    beyond = (error - most) / max(abs(most), _LEAST)
    return math.inf if math.isnan(beyond) else max(beyond, _LEAST)


def furthest(
    budgets: Iterable[Budget], figures: Iterable[Figures]
) -> tuple[Figures, Budget] | None:
    """The output that misses its budget by most, and which; None where all are kept."""
    return max(missed(budgets, figures), key=lambda miss: excess(*miss), default=None)


def worst(budgets: Iterable[Budget], figures: Iterable[Figures]) -> dict[str, float]:
    """Every figure that a budget is of, at its worst among the outputs that are held to it."""
    budgets = tuple(budgets)
    found: dict[str, float] = {}
    for one in figures:
        for name in (budget.figure for budget in bounds(budgets, one.output)):
            value = one.value(name)
            if value is not None:
                worse = max if name in AT_MOST else min
                found[name] = worse(found.get(name, value), value)
    return found


def digits(value: float, judge: Callable[[float], bool], least: int = 5) -> str:
    """A number with as many digits as it takes to be judged as it is, and not to look like 1."""
    for count in range(least, _MOST_DIGITS):
        text = f"{value:.{count}g}"
        shown = float(text)
        if judge(shown) == judge(value) and (shown != 1 or value == 1):
            return text
    return f"{value:.{_MOST_DIGITS}g}"


def whole(value: float) -> str:
    """A number with all its digits."""
    return digits(value, lambda shown: shown == value)


def told(figures: Figures, budget: Budget) -> str:
    """``cosine 0.98213 of logits, at least 0.999 is wanted``, with the digits that show it."""
    at = "at most" if budget.figure in AT_MOST else "at least"
    shown = _shown(figures, budget)
    return f"{budget.figure} {shown} of {figures.output}, {at} {whole(budget.bound)} is wanted"


def reached(figures: Figures, budget: Budget) -> str:
    """``cosine of logits is 0.98213``."""
    return f"{budget.figure} of {figures.output} is {_shown(figures, budget)}"


def _shown(figures: Figures, budget: Budget) -> str:
    value = figures.value(budget.figure)
    assert value is not None
    return digits(value, lambda shown: kept(budget, shown))
