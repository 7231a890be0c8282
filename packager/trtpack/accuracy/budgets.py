# SPDX-License-Identifier: Apache-2.0
"""Bounds on how far a build may be from the model: by default, and held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..errors import ConfigError
from ..options import AT_MOST, Budget, Options
from .figures import Figures

_DEFAULT = {"fp16": 0.999, "mixed": 0.999, "bf16": 0.99, "mixed-bf16": 0.99, "tf32": 0.9999}
_PRUNED = 0.95
_DEFAULT |= {"auto": 0.999, "int8": 0.99, "fp8": 0.99, "int8-weights": 0.999, "int4": 0.98}
"""The cosine similarity that every output keeps where no budget is given."""


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


def told(figures: Figures, budget: Budget) -> str:
    """``cosine 0.98213 of logits, at least 0.999 is wanted``, with the digits that show it."""
    value = figures.value(budget.figure)
    shown = f"{value:.5g}"
    if value is not None and kept(budget, float(shown)):
        shown = f"{value:.9g}"
    at = "at most" if budget.figure in AT_MOST else "at least"
    return f"{budget.figure} {shown} of {figures.output}, {at} {budget.bound:.9g} is wanted"
