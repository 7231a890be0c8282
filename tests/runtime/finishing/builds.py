# SPDX-License-Identifier: Apache-2.0
"""A double of TensorRT's builds, engines that are evaluated, and bundles on a device of these."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.runtime import deferred
from trtpack_runtime import load, placement
from trtpack_runtime.bundle import Bundle
from trtpack_runtime.engines import LoadContext, Runner, reference, tensorrt
from trtpack_runtime.errors import BundleError
from trtpack_runtime.finish import Stores, Workshop
from trtpack_runtime.finish_bundle import FinishedBundle, finish_bundle
from trtpack_runtime.loading import DegradedWarning
from trtpack_runtime.module import BundleModule
from trtpack_runtime.own_engines import own_engines
from trtpack_runtime.resolve import resolve

PLAN = b"plan of "


class Builds:
    """Stands for ``tensorrt.build``: writes a plan that names what it was built from."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.seeds: list[bytes | None] = []
        self.fail: dict[str, Exception] = {}
        self.during: Callable[[], None] = lambda: None
        self.refused: str | None = None
        self.gpu: dict[str, int] = {}

    def __call__(self, network: Any, weights: Any, plan: Path, **given: Any) -> tensorrt.Built:
        name = given["name"]
        self.names.append(name)
        self.seeds.append(given["tactics"])
        told = given["on_progress"]
        for step in range(5):
            told({"phase": "Building", "parent": None, "step": step, "steps": 4})
        self.during()
        if name in self.fail:
            raise self.fail[name]
        plan.write_bytes(PLAN + network.digest().encode())
        record = tensorrt.record_of(given["facts"]["tensorrt"], given["options"], given["facts"])
        after = (given["tactics"] or b"") + name.encode()
        return tensorrt.Built(record, 1.5, after, None, (), self.refused, self.gpu)


def evaluated(monkeypatch: pytest.MonkeyPatch) -> dict[str, LoadContext]:
    """Makes this an H200 whose engines are evaluated; answers each one's context, by segment."""
    contexts: dict[str, LoadContext] = {}

    def loaded(blob: memoryview | Path | None, context: LoadContext) -> Runner:
        assert isinstance(blob, memoryview)
        assert context.network is not None
        if bytes(blob) != PLAN + context.network.digest().encode():
            raise BundleError("TensorRT cannot read the engine", hint="build it again")
        contexts[context.segment.name] = context
        return reference.load(None, context)

    monkeypatch.setattr(tensorrt, "load", loaded)
    monkeypatch.setattr(placement, "facts", deferred.h200)
    monkeypatch.setattr(placement, "GPU", "cpu")
    return contexts


def loaded(path: Path, **options: Any) -> BundleModule:
    """The bundle, which must not be degraded."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DegradedWarning)
        return load(path, **options)


def finished(bundle: Bundle, path: Path, facts: Mapping[str, Any], **how: Any) -> FinishedBundle:
    with tempfile.TemporaryDirectory() as scratch:
        target = how.pop("target", None)
        return finish_bundle(bundle, path, Workshop(facts, Path(scratch), **how), target=target)


def fits(bundle: Bundle, facts: Mapping[str, Any], **how: Any) -> dict[str, tuple[str, str]]:
    own = own_engines(bundle, facts, Stores().engines, **how)
    found = resolve(bundle.manifest, facts, (), own)
    return {c.variant: (c.verdict.fit, c.verdict.reason) for c in found}
