# SPDX-License-Identifier: Apache-2.0
"""What is made of a smoke test on a device, by what the device has and how the run ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trtpack.remote.device import Hello
from trtpack.remote.smoke import cannot_smoke, failure, run_smoke

LATENCY = {"wall": {"p50_ms": 2.5}}
REPORT = {
    "device": "cuda:0",
    "failed_engines": {"forward_0": "it does not load"},
    "methods": {"forward": {"latency": LATENCY}, "encode": {"latency": None}},
}


def hello(numpy: str | None = "2.0", **facts: Any) -> Hello:
    known = {"python": "3.10.12", "torch": None, "gpus": [], "tensorrt": None}
    return Hello({**known, "cuda_bindings": None, **facts}, numpy, 0.0, "/tmp/x", 1 << 30, ())


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (hello(torch="2.3.0"), None),
        (hello(gpus=[{}], tensorrt="10.3", cuda_bindings="12.6"), None),
        (hello(None, torch="2.3.0"), "its Python 3.10.12 has no numpy"),
        (hello(gpus=[{}], tensorrt="10.3"), "its Python 3.10.12 has no PyTorch, nor cuda-bindings"),
        (hello(cuda_bindings="12.6"), "its Python 3.10.12 has no PyTorch, nor cuda-bindings"),
    ],
)
def test_what_a_smoke_test_needs(there: Hello, why: str | None) -> None:
    found = cannot_smoke(there)
    assert found is None if why is None else str(found).startswith(why)


class Ran:
    """A device on which the run ends so."""

    address = "orin"

    def __init__(self, code: int, out: str = "", err: str = "") -> None:
        self._code, self._written = code, {"out": out, "err": err}
        self.arguments: list[str] = []

    def ask(self, task: str, on_report: Any, arguments: list[str]) -> dict[str, Any]:
        self.arguments = arguments
        for name, text in self._written.items():
            for piece in (text[:5], text[5:]):
                on_report({"stream": name}, piece.encode())
        return {"code": self._code}


@pytest.mark.parametrize(
    ("ran", "verdict", "told"),
    [
        (Ran(0, json.dumps(REPORT)), "passed", "on cuda:0, 2.50 ms a call"),
        (
            Ran(8, json.dumps(REPORT)),
            "degraded",
            "PyTorch runs what an engine should: forward_0: it does not load",
        ),
        (Ran(7, json.dumps(REPORT), "error: y is off\nhint: no"), "failed", "y is off"),
        (Ran(6, "", "building\nerror: no memory\nhint: x"), "not run", "no memory"),
        (Ran(137), "not run", "it ended with status 137"),
    ],
)
def test_how_a_run_ended(ran: Any, verdict: str, told: str) -> None:
    found = run_smoke(ran, "bundle.tar", "orin")
    assert (found.verdict, found.told) == (verdict, told)
    assert (found.report is not None) == (ran._written["out"] != "")
    assert {"--target", "orin", "--no-build", "--trust", "--json"} <= set(ran.arguments)


def test_a_failure_names_variant_device_and_file() -> None:
    found = run_smoke(Ran(7, "", "error: y is off"), "bundle.tar", "orin")  # type: ignore[arg-type]  # stands for a device
    error = failure("orin", "robot@orin", found, Path("b.failed.tar"))
    assert (error.exit_code, error.message) == (7, "orin on robot@orin: y is off")
    assert "b.failed.tar" in error.hint
