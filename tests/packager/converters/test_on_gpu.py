# SPDX-License-Identifier: Apache-2.0
"""Every converter's cases on a real engine: what eager PyTorch answers, TensorRT has to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.proving.converters import converter_trials, target_of
from tests.proving.engine import KINDS, TensorRT
from tests.proving.proof import Result, prove
from trtpack_runtime.device import facts
from trtpack_runtime.engines import tensorrt
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.engines.tensorrt_rtx import CAPABILITIES

pytestmark = pytest.mark.gpu

SUBJECTS = sorted(
    path.stem.removeprefix("test_")
    for path in Path(__file__).parent.glob("test_*.py")
    if path.name != Path(__file__).name
)
_PACK, _SECONDS = 50, 240.0
"""Cases to an engine, and the longest that building or running one may take."""


@pytest.fixture(scope="session", params=sorted(KINDS))
def module(request: pytest.FixtureRequest) -> str:
    """A TensorRT's module, where this machine can build and run with it."""
    name, here = str(request.param), facts()
    if not here[name]:
        pytest.skip(f"{name} is not installed")
    if not here["gpus"]:
        pytest.skip("; ".join(here["problems"]) or "there is no NVIDIA GPU")
    if name == "tensorrt" and (reason := tensorrt.can_build(here)):
        pytest.skip(reason)
    return name


@pytest.mark.parametrize("subject", SUBJECTS)
def test_tensorrt_answers_what_pytorch_does(module: str, subject: str) -> None:
    trials, results = converter_trials(target_of(module, facts()[module]), (subject,))
    engine = TensorRT(module, _options(module), build_only=False, seconds=_SECONDS)
    try:
        prove(trials, [engine], pack=_PACK, on_results=results.update)
    finally:
        engine.close()
    assert set(results) >= {trial.name for trial in trials}
    assert _failed(results) == {}


def _options(module: str) -> BuildOptions:
    capability = CAPABILITIES[facts()["gpus"][0]["sm"]] if module == "tensorrt_rtx" else None
    return BuildOptions(
        compute_capabilities=(capability,) if capability else (), optimization_level=1
    )


def _failed(results: dict[str, Result]) -> dict[str, Any]:
    return {name: r["why"] for name, r in results.items() if r["state"] == "failed"}
