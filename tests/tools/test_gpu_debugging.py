# SPDX-License-Identifier: Apache-2.0
"""Inspection, profiles and accuracy debugging with a real TensorRT on a real GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.runtime import planned
from tests.runtime.command import trtpack
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.device import facts
from trtpack_runtime.engines import tensorrt
from trtpack_tools.extract import extract_plans

pytestmark = pytest.mark.gpu
HUGE = ["blocks.3/linear", "blocks.3.act/relu", "blocks.4/linear"]
"""The layer of the model that exceeds HALF, and those that read what does."""


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = facts()
    if reason := tensorrt.can_build(here):
        pytest.skip(reason)
    sm = here["gpus"][0]["sm"]
    return planned.write_deep(tmp_path_factory.mktemp("deep") / "deep.tar", target_sm=sm)


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_a_profile_maps_to_modules(deep: Path, tmp_path: Path, cache: dict[str, str]) -> None:
    trace = tmp_path / "trace.json"
    arguments = ["--target", "here", "--iterations", "5", "--json", "--trace", trace]
    done = trtpack("profile", deep, *arguments, env=cache)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    (segment,) = found["segments"]
    assert (found["degraded"], segment["engine"]) == (False, "tensorrt")
    assert segment["mean_ms"] > 0
    origins = {o["layer"] for layer in segment["layers"] for o in layer["origins"]}
    network, _ = planned.deep()
    assert origins, segment["layers"]
    assert origins <= {layer.name for layer in network.layers}
    events = json.loads(trace.read_text())["traceEvents"]
    assert {e["name"] for e in events} >= {layer["name"] for layer in segment["layers"]}


def test_an_engine_with_details(deep: Path, cache: dict[str, str]) -> None:
    arguments = ["--engine", "forward_0", "--target", "here", "--detailed", "--json"]
    done = trtpack("inspect", deep, *arguments, env=cache)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["detailed"]
    assert any(layer["tactic"] for layer in found["layers"])
    assert any(layer["origins"] for layer in found["layers"])
    assert found["figures"]["device_memory_bytes"] is not None


@pytest.mark.parametrize("how", [[], ["--search"]])
def test_overflow_is_found_and_pinned(
    deep: Path, tmp_path: Path, cache: dict[str, str], how: list[str]
) -> None:
    pinned = tmp_path / "pinned.tar"
    arguments = ["--target", "here", "--pin", "-o", pinned, "--json", *how]
    done = trtpack("debug", "accuracy", deep, *arguments, env=cache)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["first"]["layer"] == HUGE[0]
    assert found["first"]["origin"]["source"] == "model.py:13"
    assert found["pins"] == HUGE
    assert found["written"]["deferred"] is None
    again = trtpack("debug", "accuracy", pinned, "--target", "here", "--json", env=cache)
    assert json.loads(again.out)["first"] is None, again.out
    (plan,) = extract_plans(open_bundle(pinned), tmp_path / "plans", target="here")
    assert plan.sha256 == open_bundle(pinned).entries["engines/here/forward_0.plan"].sha256
    from trtpack_runtime.loading import load

    module = load(pinned, target="here")
    (answer,) = module.run("forward", [torch.ones(4, 8, dtype=torch.float16, device="cuda") * 100])
    assert answer.isfinite().all()
