# SPDX-License-Identifier: Apache-2.0
"""The smoke test on the device, where what it needs is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtpack_runtime.errors import SmokeFailure

from ..report import SmokeOnDevice
from .device import Device, Hello

_BUDGET_S = 5
_WRONG, _DEGRADED = 7, 8


def cannot_smoke(hello: Hello) -> str | None:
    """Why a device cannot run a bundle, as a clause; None where it can try."""
    facts = hello.facts
    if hello.numpy is None:
        return f"its Python {facts['python']} has no numpy"
    if facts.get("torch"):
        return None
    if facts["gpus"] and facts.get("tensorrt") and facts.get("cuda_bindings"):
        return None
    return f"its Python {facts['python']} has no PyTorch, nor cuda-bindings to run without it"


def run_smoke(device: Device, bundle: str, variant: str) -> SmokeOnDevice:
    """Runs a variant on the device, with the engines that are in the store there."""
    out: dict[str, bytes] = {"out": b"", "err": b""}

    def keep(message: Mapping[str, Any], data: bytes) -> None:
        out[message["stream"]] += data

    words = ["run", bundle, "--target", variant, "--no-build", "--trust", "--json"]
    done = device.ask("execute", keep, arguments=[*words, "--budget", str(_BUDGET_S)])
    code, error = done["code"], _error(out["err"])
    report = _report(out["out"])
    if code == 0:
        return SmokeOnDevice("passed", _where(report), report)
    if code == _WRONG:
        return SmokeOnDevice("failed", error, report)
    if code == _DEGRADED and report is not None:
        failed = "; ".join(f"{name}: {why}" for name, why in report["failed_engines"].items())
        return SmokeOnDevice("degraded", f"PyTorch runs what an engine should: {failed}", report)
    return SmokeOnDevice("not run", error or f"it ended with status {code}", report)


def failure(variant: str, address: str, smoke: SmokeOnDevice, bundle: Path) -> SmokeFailure:
    """What to raise for a smoke test that failed."""
    return SmokeFailure(
        f"{variant} on {address}: {smoke.told}",
        hint=f"look at the bundle with: trtpack inspect {bundle}",
    )


def _where(report: Mapping[str, Any] | None) -> str:
    if report is None:
        return ""
    times = [m["latency"]["wall"]["p50_ms"] for m in report["methods"].values() if m["latency"]]
    took = f", {sum(times):.2f} ms a call" if times else ""
    return f"on {report['device']}{took}"


def _report(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _error(text: bytes) -> str:
    lines = text.decode(errors="replace").splitlines()
    named = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return named[-1] if named else (lines[-1] if lines else "")
