# SPDX-License-Identifier: Apache-2.0
"""Which settings to try next: each alone at first, then what Optuna's sampler makes of the results.

The sampler is told every trial again each time and its seed follows from their number, so a search
that is taken up again goes on as it would have gone.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError
from .space import Setting, Settings, combinations

_ASKED_AGAIN = 16
"""How often the sampler may name what was tried before."""


def check_optuna() -> None:
    """Refuses to begin without Optuna.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        importlib.import_module("optuna")
    except ImportError as error:
        raise ConfigError(
            "--tune needs Optuna, which is not installed", hint="pip install 'trtpack[tune]'"
        ) from error


def suggest(
    space: Sequence[Setting], tried: Sequence[tuple[Settings, float | None]], seed: int
) -> dict[str, Any] | None:
    """Settings that were not tried yet; None where all were.

    Args:
        space: what may be changed.
        tried: what was, with its time as a share of that of the usual settings; None: it failed.
        seed: of the sampler.
    """
    known = {_key(settings) for settings, _ in tried}
    for setting in space:
        alone = {setting.name: setting.others[0]}
        if _key(alone) not in known:
            return alone
    left = [made for made in combinations(tuple(space)) if _key(made) not in known]
    if not left:
        return None
    asked = _asked(space, tried, seed)
    return next((made for made in asked if _key(made) not in known), left[0])


def _asked(
    space: Sequence[Setting], tried: Sequence[tuple[Settings, float | None]], seed: int
) -> list[dict[str, Any]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=len(space) + 1, seed=seed + len(tried), multivariate=False
    )
    study = optuna.create_study(sampler=sampler, direction="minimize")
    places: dict[str, optuna.distributions.BaseDistribution] = {
        s.name: optuna.distributions.CategoricalDistribution(range(len(s.values))) for s in space
    }
    for settings, time in tried:
        if any(settings.get(s.name, s.usual) not in s.values for s in space):
            continue  # of another release, which tried other values
        study.add_trial(
            optuna.trial.create_trial(
                params={s.name: s.values.index(settings.get(s.name, s.usual)) for s in space},
                distributions=dict(places),
                value=time,
                state=optuna.trial.TrialState.COMPLETE
                if time is not None
                else optuna.trial.TrialState.FAIL,
            )
        )
    made = []
    for _ in range(_ASKED_AGAIN):
        asked = study.ask(places).params
        chosen = {s.name: s.values[asked[s.name]] for s in space}
        made.append({s.name: chosen[s.name] for s in space if chosen[s.name] != s.usual})
    return made


def _key(settings: Settings) -> str:
    return json.dumps(dict(settings), sort_keys=True)
