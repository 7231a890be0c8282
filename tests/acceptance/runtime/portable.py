# SPDX-License-Identifier: Apache-2.0
"""Models of the zoo without TensorRT: AOTInductor's and PyTorch's own numbers and times."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tests.acceptance.runtime.row import Figure, Row, Settings
from tests.acceptance.table import Bar

TITLE = "AOTInductor and PyTorch alone, float32"
MODELS = (
    "dlrm",
    "lstm_net",
    "resnet18",
    "mobilenet_v3_large",
    "swin_t",
    "BERT_pytorch",
    "hf_GPT2",
    "whisper_tiny_encoder",
    "yolov8n_like",
    "pyhpc_turbulent_kinetic_energy",
)
ON_CPU = MODELS[:2]
"""Those that a CPU compiles in bearable time."""
KINDS = ("inductor", "reference")
SPARE_S = 5.0
"""What is left of the part's time when a model's process is ended."""
COLUMNS = ("inductor", "reference", "eager", "torch.compile")


def rows(settings: Settings) -> Iterator[Row]:
    """A row for each model, measured in a process of its own."""
    for name in ON_CPU if settings.device == "cpu" else MODELS:
        if not settings.wants(name):
            continue
        found = measured(name, settings)
        if found is None:
            raise SystemExit(f"no time was left for {name}; its bundles are kept for the next run")
        yield row(name, found)


def measured(name: str, settings: Settings) -> dict[str, Any] | None:
    """What a model's own process found, or why it ended without; None where the time was up."""
    command = [sys.executable, "-m", "tests.acceptance.runtime.portable_model", name]
    try:
        done = subprocess.run(
            [*command, settings.device, str(settings.folder), str(int(settings.quick))],
            capture_output=True,
            text=True,
            timeout=max(settings.left_s - SPARE_S, 1.0),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = " | ".join(lines[-3:]) or f"exit status {done.returncode}"
        return {kind: {"problem": reason} for kind in KINDS}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(name: str, found: Mapping[str, Any]) -> Row:
    """A model's figures; its notes say what could not be compiled, and why."""
    figures: dict[str, Figure] = {}
    bars, notes = [], []
    for column in COLUMNS:
        time = found.get("latency_ms", {}).get(column)
        figures[f"{column}, ms"] = "" if time is None else time
    for kind in KINDS:
        told = found[kind]
        problem = told.get("problem")
        figures[f"{kind}, rel. L2"] = "" if problem else f"{told['rel_l2']:.1e}"
        answer = problem or ("right" if told["passed"] else str(told["failure"]))
        holds = not problem and told["passed"]
        bars.append(Bar(f"{name}: golden samples by {kind}", answer, holds))
        if problem:
            notes.append(f"{name} was not run by {kind}: {problem}.")
    if "seconds" in found:
        figures["compiled in, s"] = found["seconds"]
    if "compile_problem" in found:
        notes.append(f"{name} was not run by torch.compile: {found['compile_problem']}.")
    return Row(name, figures, tuple(bars), tuple(notes))
