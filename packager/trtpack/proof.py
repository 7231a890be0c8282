# SPDX-License-Identifier: Apache-2.0
"""Proves a finished bundle on this host, with the samples it carries."""

from __future__ import annotations

import warnings
from pathlib import Path

from trtpack_runtime.errors import CompileError
from trtpack_runtime.module import DegradedWarning, load
from trtpack_runtime.smoke import SmokeReport


def prove(bundle: Path, target: str) -> SmokeReport:
    """Runs one variant on the golden samples, its TensorRT segments by the evaluator.

    Raises:
        CompileError: an output is outside its tolerance; it names the output and the figures.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegradedWarning)  # this host is not the device
        loaded = load(bundle, target=target, device="cpu")
    report = loaded.smoke()
    worst = report.worst
    if not report.passed and worst is not None:
        raise CompileError(
            f"the program for {target} does not compute what the model does: "
            f"{worst.output} of {worst.sample}: {worst.failure}",
            hint="please report this with the model; --torch-op keeps an operator in PyTorch",
        )
    return report
