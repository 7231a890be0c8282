# SPDX-License-Identifier: Apache-2.0
"""One model of the zoo, tuned."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.zoo import MODELS
from trtpack.livening import liven
from trtpack.options import Options
from trtpack.pipeline import build

END_S = 15.0
"""The best is loaded and held against the usual settings once more in this time, when no trial
begins any more."""


def trial(
    name: str,
    folder: Path,
    target: str,
    trials: int,
    threads: int | None = None,
    until: float | None = None,
) -> dict[str, Any]:
    """Tunes a model for a target that this machine is; bundle and log are in ``folder``.

    ``until`` is when it should be done, as ``time.time`` tells it.
    """
    model, example, _ = MODELS[name]()
    liven(model, example, seed=0)
    options = Options(
        targets=(target,),
        output=folder / f"{name}.tar",
        tune=True,
        trials=trials,
        threads=threads,
        budget_minutes=None if until is None else max(1.0, until - time.time() - END_S) / 60,
    )
    told = build((model, example), options).tuning
    assert told is not None
    usual = told["trials"][0]
    return {
        "trials": len(told["trials"]),
        "resumed": told["resumed"],
        "ended": told["ended"],
        "usual_ms": usual["latency_ms"],
        "flags": told["flags"],
        "shipped": told["shipped"],
        "final": told["final"],
        "nearest": nearest(told),
        "built_s": sum(trial["build_seconds"] for trial in told["trials"]),
        "states": [trial["state"] for trial in told["trials"]],
    }


def nearest(told: Mapping[str, Any]) -> Mapping[str, float] | None:
    """The share of the usual time, with its bounds, of the fastest of the other trials."""
    shares = [trial["of_usual"] for trial in told["trials"] if trial["of_usual"] is not None]
    return min(shares, key=lambda share: float(share["middle"]), default=None)
