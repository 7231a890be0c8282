# SPDX-License-Identifier: Apache-2.0
"""Accuracy budgets as the command line writes them."""

from __future__ import annotations

import re

from ..errors import ConfigError
from ..options import AT_MOST, FIGURE_NAMES, Budget, Drop, Options

_FIGURE = r"(?:(?P<output>.+):)?(?P<figure>\w+)"
_AT_MOST_1 = ("cosine", "top1")
_BUDGET = re.compile(_FIGURE + r"\s*(?P<sign>[<>]=)\s*(?P<bound>[-+.\deE]+)")


def parse_budget(text: str) -> Budget:
    """The budget of ``cosine>=0.999`` or ``logits:rel_l2<=0.01``.

    Raises:
        ConfigError: no such form or figure, or a sign that the figure does not have.
    """
    match = _BUDGET.fullmatch(text.strip())
    figure = next((f for f in FIGURE_NAMES if match and f == match["figure"]), None)
    if match is None or figure is None:
        raise ConfigError(
            f"bad budget {text!r}",
            hint=f"write it as 'cosine>=0.999', of {', '.join(FIGURE_NAMES)}",
        )
    sign = "<=" if figure in AT_MOST else ">="
    if match["sign"] != sign:
        kind = "an error, at most so large" if figure in AT_MOST else "to be at least so large"
        raise ConfigError(f"bad budget {text!r}: {figure} is {kind}", hint=f"write {sign}")
    try:
        bound = float(match["bound"])
    except ValueError as error:
        raise ConfigError(
            f"bad budget {text!r}: {match['bound']!r} is no number", hint="write 'cosine>=0.999'"
        ) from error
    if figure in _AT_MOST_1 and bound > 1:
        raise ConfigError(
            f"bad budget {text!r}: {figure} is never above 1", hint=f"write {figure}>=0.999"
        )
    if figure in AT_MOST and bound < 0:
        raise ConfigError(
            f"bad budget {text!r}: {figure} is never below 0", hint=f"write {figure}<=0.01"
        )
    return Budget(figure, bound, match["output"])


def parse_drop(text: str | None) -> Drop | None:
    """The drop of ``0.5%``, a share of what the model has, or ``0.005``, an amount.

    Raises:
        ConfigError: no number from 0 on, or more than all that the model has.
    """
    if text is None:
        return None
    number = text.strip()
    relative = number.endswith("%")
    try:
        amount = float(number.removesuffix("%"))
    except ValueError:
        amount = -1.0
    if not 0 <= amount < float("inf"):
        raise ConfigError(f"bad drop {text!r}", hint="write it as 0.5% or 0.005")
    if relative and amount > 100:
        raise ConfigError(
            f"bad drop {text!r}: there is only 100% to lose", hint="write it as 0.5% or 0.005"
        )
    return Drop(amount / 100 if relative else amount, relative)


def check_budgets(options: Options) -> None:
    """Refuses budgets of a metric that is not given, and a metric that nothing is held against.

    Raises:
        ConfigError: it names the flags.
    """
    of_metric = [budget for budget in options.budgets if budget.figure == "metric"]
    for flag in [f"--budget '{b}'" for b in of_metric] + ["--max-drop"] * bool(options.max_drop):
        if options.metric is None:
            raise ConfigError(
                f"{flag} is without a metric", hint="add --metric metrics.py:function"
            )
    if options.metric is not None and options.max_drop is None and not of_metric:
        raise ConfigError(
            f"nothing is held against the metric {options.metric}",
            hint="add --max-drop 0.5%, or --budget 'metric>=0.75'",
        )
