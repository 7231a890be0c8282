# SPDX-License-Identifier: Apache-2.0
"""A device chooses what it can build, and says why it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import deferred
from tests.runtime.finishing.builds import Builds, fits, loaded
from trtpack_runtime import load, placement
from trtpack_runtime.bundle import Bundle
from trtpack_runtime.engines import LoadContext
from trtpack_runtime.finish import Stores, Workshop, finish_segment
from trtpack_runtime.loading import DegradedWarning
from trtpack_runtime.own_engines import own_engines
from trtpack_runtime.resolve import choose, resolve


def test_what_can_be_built_here_outranks_the_cpu(bundle: Bundle) -> None:
    here = deferred.h200()
    own = own_engines(bundle, here, Stores().engines)
    candidates = resolve(bundle.manifest, here, (), own)
    assert [c.variant for c in candidates] == ["h200", "cpu"]
    assert candidates[0].verdict.reason == "2 engines build here at the first run"
    assert candidates[0].engines["forward_0"].reason == "builds here at its first run (2 layers)"
    choice = choose(bundle.manifest, candidates, here, strict=True)
    assert (choice.variant, choice.degraded) == ("h200", False)


@pytest.mark.parametrize(
    ("changes", "fit", "reason"),
    [
        (
            {"tensorrt": None},
            "rebuild",
            "not built yet, and cannot be built here: TensorRT is not installed",
        ),
        (
            {"tensorrt": "8.6.0"},
            "rebuild",
            "not built yet, and cannot be built here: this machine has TensorRT 8.6.0, not 10.3",
        ),
        (
            {"gpus": [{"name": "NVIDIA L4", "sm": "8.9"}]},
            "impossible",
            "needs an NVIDIA GPU of SM 9.0, this machine has SM 8.9",
        ),
        ({"gpus": []}, "impossible", "needs an NVIDIA GPU of SM 9.0, this machine has none"),
    ],
)
def test_why_it_cannot_be_built_is_told(
    bundle: Bundle, changes: Mapping[str, Any], fit: str, reason: str
) -> None:
    assert fits(bundle, deferred.h200(**changes))["h200"] == (fit, reason)


def test_without_building_only_what_is_stored_counts(bundle: Bundle) -> None:
    verdict = fits(bundle, deferred.h200(), build=False)["h200"]
    assert verdict == ("rebuild", "not built on this device yet, and building is switched off")


def test_the_time_of_the_last_build_is_foretold(
    bundle: Bundle, builds: Builds, tmp_path: Path
) -> None:
    for segment in deferred.SEGMENTS:
        finish_segment(bundle, "h200", segment, Workshop(deferred.h200(), tmp_path))
    other = deferred.h200(driver={"version": "560.2", "cuda": "12.6"})
    own = own_engines(bundle, other, Stores().engines)
    assert own["h200", "forward_0"].seconds is not None
    assert "(about 0.0 s: 2 layers)" in own["h200", "forward_0"].reason
    assert fits(bundle, other)["h200"] == (
        "builds",
        "2 engines build here at the first run (about 0.0 s)",
    )
    fit, reason = fits(bundle, deferred.h200())["h200"]
    assert fit == "exact"
    assert reason.startswith("from the store, built on this device ")


def test_the_gpu_is_left_out_where_another_device_is_asked_for(
    bundle: Bundle,
    builds: Builds,
    on_h200: dict[str, LoadContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement, "GPU", "meta")
    found = loaded(bundle.path, device="cpu")
    assert (found.variant, found.device.type, builds.names) == ("cpu", "cpu", [])
    found = loaded(bundle.path)
    assert (found.variant, found.device.type) == ("h200", "meta")


def test_the_gpu_that_is_asked_for_is_the_one_that_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus = [*deferred.ada()["gpus"], {**deferred.h200()["gpus"][0], "index": 1}]
    gpus[0] = {**gpus[0], "index": 0}
    monkeypatch.setattr(placement, "facts", lambda: deferred.h200(gpus=list(gpus)))
    for device, wanted in (("cuda", [0, 1]), ("cuda:0", [0, 1]), ("cuda:1", [1, 0])):
        found = placement.facts_for(torch.device(device))["gpus"]
        assert [gpu["index"] for gpu in found] == wanted


def test_a_pytorch_without_cuda_is_told(
    bundle: Bundle, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "facts", deferred.h200)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(DegradedWarning, match="cannot use the GPU of this machine"):
        load(bundle.path, target="h200")
    assert loaded(bundle.path).variant == "cpu"
    assert builds.names == []
