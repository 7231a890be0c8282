# SPDX-License-Identifier: Apache-2.0
"""``trtpack run`` where engines fail: what it says, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.runtime import starts
from tests.runtime.starts import Engines
from trtpack_runtime.cli.group import trtpack
from trtpack_runtime.errors import BundleError, SmokeFailure


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engines:
    return starts.on_h200(monkeypatch, tmp_path)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return starts.write(tmp_path / "bundle.tar")


def run(bundle: Path, *arguments: str) -> Result:
    given = ["run", str(bundle), "--repeats", "1", "--warmup", "0", *arguments]
    return CliRunner().invoke(trtpack, given)


def told(result: Result) -> Any:
    return json.loads(result.output)


def test_all_is_well(bundle: Path, engines: Engines) -> None:
    result = run(bundle, "--json")
    assert result.exit_code == 0, result.output
    found = told(result)
    assert not found["degraded"]
    assert {"open", "verify", "deserialise", "warm-up", "total"} <= set(found["start"]["seconds"])
    assert found["start"]["memory"]["predicted_bytes"] > 0


def test_an_engine_that_does_not_load(bundle: Path, engines: Engines) -> None:
    engines.refuse["forward_1"] = BundleError("TensorRT cannot read the engine")
    result = run(bundle)
    assert result.exit_code == 8
    assert "forward_1 runs in PyTorch, slower than an engine" in result.output
    strict = run(bundle, "--strict")
    assert isinstance(strict.exception, BundleError)


def test_an_engine_that_computes_something_else(bundle: Path, engines: Engines) -> None:
    engines.error["forward_0"] = 0.5
    result = run(bundle, "--json")
    assert result.exit_code == 8
    found = told(result)
    assert found["degraded"]
    assert "of its size" in found["failed_engines"]["forward_0"]
    smoke = found["methods"]["forward"]["smoke"]
    assert smoke["passed"]
    assert [d["segment"] for d in smoke["departures"]] == ["forward_0"]
    strict = run(bundle, "--strict")
    assert isinstance(strict.exception, SmokeFailure)
    assert "segment 1 of 2 (forward_0, tensorrt" in strict.exception.message


def test_a_fast_start_measures_the_engines(bundle: Path, engines: Engines) -> None:
    engines.seconds = 0.1
    result = run(bundle, "--json", "--start", "fast")
    assert result.exit_code == 0, result.output
    found = told(result)
    assert found["start"]["first_answer_seconds"] > 0
    kinds = [s["engine"] for s in found["methods"]["forward"]["segments"]]
    assert kinds == ["tensorrt", "tensorrt"]
