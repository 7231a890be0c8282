# SPDX-License-Identifier: Apache-2.0
"""One model of the zoo, tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.zoo import MODELS
from trtpack.livening import liven
from trtpack.options import Options
from trtpack.pipeline import build


def trial(name: str, folder: Path, target: str, trials: int, threads: int | None) -> dict[str, Any]:
    """Tunes a model for a target that this machine is; bundle and log are in ``folder``."""
    model, example, _ = MODELS[name]()
    liven(model, example, seed=0)
    output = folder / f"{name}.tar"
    options = Options(targets=(target,), output=output, tune=True, trials=trials, threads=threads)
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
        "built_s": sum(trial["build_seconds"] for trial in told["trials"]),
        "states": [trial["state"] for trial in told["trials"]],
    }
