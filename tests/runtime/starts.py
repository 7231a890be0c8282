# SPDX-License-Identifier: Apache-2.0
"""A bundle with two engines, and a machine for them: its TensorRT is a double that evaluates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import deferred
from trtpack_runtime import placement
from trtpack_runtime.borders import border_of
from trtpack_runtime.bundle import Member, open_bundle
from trtpack_runtime.engines import LoadContext, Runner, reference, tensorrt
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.errors import BundleError
from trtpack_runtime.manifest import EngineRef
from trtpack_runtime.rewrite import rewrite

PLAN = b"a serialised engine"
X = torch.linspace(-2, 8, 12).reshape(3, 4)


def wanted(x: torch.Tensor = X) -> torch.Tensor:
    """What the bundle computes."""
    weights = deferred.weights()
    return torch.relu(torch.relu(x @ weights["w0"]) @ weights["w1"])


def write(path: Path, **memory: int) -> Path:
    """The bundle of ``deferred.py`` with engines in it and what crosses between them.

    ``memory`` are the figures of each engine's record.
    """
    bundle = open_bundle(deferred.write(path, variants=("h200",)))
    record = tensorrt.record_of("10.3.0.30", BuildOptions(), deferred.h200())
    if memory:
        record["memory"] = memory
    members = {name: f"engines/h200/{name}.plan" for name in deferred.SEGMENTS}
    refs = {name: EngineRef("tensorrt", member, record) for name, member in members.items()}
    variants = dict(bundle.manifest.variants)
    variants["h200"] = replace(variants["h200"], engines=refs)
    method = bundle.manifest.methods["forward"]
    golden = bundle.tensors("golden/forward-0.safetensors")
    crossing = torch.relu(golden["input.0"].tensor() @ deferred.weights()["w0"])
    method = replace(method, borders=({"v0": border_of(crossing)},))
    manifest = replace(bundle.manifest, variants=variants, methods={"forward": method})
    rewrite(bundle, path, manifest=manifest, add=[Member(m, PLAN) for m in members.values()])
    return path


class Engines:
    """Stands for ``tensorrt.load``: evaluates, after ``seconds``, and fails as it is told."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.seconds = 0.0
        self.refuse: dict[str, Exception] = {}
        self.error: dict[str, float] = {}
        self.during: Callable[[], None] = lambda: None
        self.runs: dict[str, Exception] = {}
        self.options: Mapping[str, Any] = {}

    def __call__(self, blob: memoryview | Path | None, context: LoadContext) -> Runner:
        name = context.segment.name
        time.sleep(self.seconds)
        self.during()
        self.options = context.options
        if name in self.refuse:
            raise self.refuse[name]
        assert isinstance(blob, memoryview)
        if bytes(blob) != PLAN:
            raise BundleError("TensorRT cannot read the engine: it is no plan, or a damaged one")
        evaluated = reference.load(None, context)
        self.loaded.append(name)

        def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            if name in self.runs:
                raise self.runs[name]
            return [value + self.error.get(name, 0.0) for value in evaluated(inputs)]

        return run


def on_h200(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engines:
    """Makes this machine one with an H200 and TensorRT 10.3, with stores of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    engines = Engines()
    monkeypatch.setattr(tensorrt, "load", engines)
    monkeypatch.setattr(placement, "facts", deferred.h200)
    monkeypatch.setattr(placement, "GPU", "cpu")
    return engines
