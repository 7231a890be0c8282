# SPDX-License-Identifier: Apache-2.0
"""From a bundle to engines and routes, without torch: opened, resolved, built, deserialised."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ..bundle import Bundle, open_bundle
from ..choosing import chosen
from ..device import facts
from ..device_builds import DeviceBuilds
from ..errors import BundleError, ConfigError, DeviceError
from ..finish import Finished, Stores, Workshop
from ..memory_plan import MemoryPlan
from ..phases import LoadTimes, phase
from ..progress import OnProgress
from ..resolve import Choice
from ..segments import TENSORRT_KINDS
from .cuda import Cuda, api
from .loader import Loader, program_of, segments_of
from .room import checked, planned
from .route import Route

_SHOWN = 3
"""Operators named of a segment that needs PyTorch."""


@dataclass(frozen=True)
class Options:
    """What a session is opened with; see ``Session``."""

    device: int
    methods: tuple[str, ...]
    target: str | None = None
    trust: bool = False
    build: bool = True
    rebuild: bool = False
    verify: Literal["lazy", "full"] = "lazy"
    check_memory: bool = True
    on_progress: OnProgress | None = None


@dataclass(frozen=True)
class Opened:
    """A bundle whose engines are loaded; twins share it."""

    bundle: Bundle
    choice: Choice
    own: Mapping[str, Finished]
    trt: Any
    routes: Mapping[str, Route]
    times: LoadTimes
    memory: MemoryPlan
    cuda: Cuda


def opened(path: Any, options: Options) -> Opened:
    """Opens a bundle and loads every engine of some methods.

    Raises:
        BundleError: a damaged bundle, or no variant fits this machine.
        ConfigError: no such method or variant.
        DeviceError: a segment needs PyTorch, or the GPU has no room.
        EngineBuildError: an engine could not be built here.
    """
    times = LoadTimes()
    with times.measuring():
        with phase("open"):
            bundle = open_bundle(path, verify=options.verify)
        for name in options.methods:
            if name not in bundle.manifest.methods:
                has = ", ".join(bundle.manifest.methods)
                raise ConfigError(
                    f"the bundle has no method {name!r}, it has {has}",
                    hint="choose one of them",
                )
        stores = Stores()
        with phase("resolve"):
            here = _facts(options.device)
            choice = _without_torch(bundle, _chosen(bundle, here, stores, options), options)
            cuda = Cuda(api(), options.device)  # TensorRT loads engines for the GPU that it took

        plan = MemoryPlan(())

        def made(
            now: Choice, own: Mapping[str, Finished], failed: Mapping[str, str]
        ) -> tuple[Choice, Mapping[str, Finished], Any, Mapping[str, Route]]:
            loader = Loader(bundle, now, own, options.trust)
            programs = [program_of(bundle, now.variant, method) for method in options.methods]
            nonlocal plan
            plan = planned(bundle, map(loader.picked, segments_of(programs)))
            if options.check_memory:
                plan = checked(plan, cuda, here, now.variant)
            routes = {steps.method: loader.route(steps) for steps in programs}
            return now, dict(own), loader.trt, routes

        with tempfile.TemporaryDirectory(prefix="trtpack-", ignore_cleanup_errors=True) as scratch:
            shop = Workshop(here, Path(scratch), stores, options.on_progress)
            builds = DeviceBuilds(bundle, shop, strict=True)
            now, own, trt, routes = builds.load(
                choice, made, build=options.build, rebuild=options.rebuild
            )
    return Opened(bundle, now, own, trt, routes, times, plan, cuda)


def _facts(device: int) -> dict[str, Any]:
    """This machine's facts with the GPU that is wanted first; PyTorch is as if it were not there,
    so that no variant is chosen for it."""
    here = {**facts(), "torch": None}
    here["gpus"] = sorted(here["gpus"], key=lambda gpu: gpu["index"] != device)
    return here


def _chosen(bundle: Bundle, here: dict[str, Any], stores: Stores, options: Options) -> Choice:
    """The variant that fits best; where only PyTorch makes one fit, the one that fits with it."""
    wanted = partial(chosen, target=options.target, trust=options.trust, build=options.build)
    try:
        return wanted(bundle, here, stores)
    except BundleError:
        torch = facts()["torch"]
        if torch is None:
            raise
        choice = wanted(bundle, {**here, "torch": torch}, stores)
        if choice.degraded:
            raise
        return choice


def _without_torch(bundle: Bundle, choice: Choice, options: Options) -> Choice:
    """The best variant that needs no PyTorch.

    Raises:
        DeviceError: there is none; names a segment of the best one, and why.
    """
    reasons = []
    for candidate in [choice.chosen, *choice.candidates]:
        if not candidate.runs or options.target not in (None, candidate.variant):
            continue
        reason = _needs_torch(bundle, candidate.variant, options.methods)
        if reason is None:
            return replace(choice, chosen=candidate)
        reasons.append(reason)
    raise DeviceError(
        reasons[0], hint="load it with trtpack_runtime.load, on a machine with PyTorch"
    )


def _needs_torch(bundle: Bundle, variant: str, methods: Sequence[str]) -> str | None:
    """The first segment that only PyTorch runs, and why."""
    described = bundle.manifest.variants[variant]
    for method in methods:
        for segment in program_of(bundle, variant, method).segments:
            if segment.graph is not None:
                ops = dict.fromkeys(str(n.get("op")) for n in segment.graph.get("nodes", ()))
                named = ", ".join(list(ops)[:_SHOWN]) + (", ..." if len(ops) > _SHOWN else "")
                return f"segment {segment.name} of {variant} needs PyTorch: it runs {named}"
            ref = described.engines.get(segment.name)
            kind = "reference" if ref is None else ref.kind
            if kind not in TENSORRT_KINDS:
                return f"segment {segment.name} of {variant} needs PyTorch: its kind is {kind}"
    return None
