# SPDX-License-Identifier: Apache-2.0
"""From a bundle to engines and routes, without torch: opened, resolved, built, deserialised."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import dims, network, program, wiring
from ..bundle import Bundle, open_bundle
from ..choosing import chosen
from ..device import facts
from ..device_builds import DeviceBuilds
from ..dtypes import by_safetensors
from ..engine_file import UnreadableEngineError, own_blob
from ..engines import _find, _load, _refit, tensorrt_module
from ..errors import BundleError, ConfigError, DeviceError
from ..finish import Finished, Stores, Workshop
from ..layers import KINDS
from ..ledger import carries_code
from ..phases import LoadTimes, phase
from ..program import Program, Segment
from ..progress import OnProgress
from ..resolve import Choice
from ..segments import TENSORRT_KINDS
from .cuda import Cuda, api
from .engine import SegmentEngine
from .route import Route, route
from .stored import stored

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
            bundle = open_bundle(path)
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
            choice = chosen(
                bundle,
                here,
                stores,
                target=options.target,
                trust=options.trust,
                build=options.build,
            )
            choice = _without_torch(bundle, choice, options)
            cuda = Cuda(api(), options.device)  # TensorRT loads engines for the GPU that it took

        def made(
            now: Choice, own: Mapping[str, Finished], failed: Mapping[str, str]
        ) -> tuple[Choice, Mapping[str, Finished], Any, Mapping[str, Route]]:
            loader = _Loader(bundle, now, own, options.trust)
            routes = {method: loader.route(method) for method in options.methods}
            return now, dict(own), loader.trt, routes

        with tempfile.TemporaryDirectory(prefix="trtpack-", ignore_cleanup_errors=True) as scratch:
            shop = Workshop(here, Path(scratch), stores, options.on_progress)
            builds = DeviceBuilds(bundle, shop, strict=True)
            now, own, trt, routes = builds.load(
                choice, made, build=options.build, rebuild=options.rebuild
            )
    return Opened(bundle, now, own, trt, routes, times, cuda)


def _facts(device: int) -> dict[str, Any]:
    """This machine's facts with the GPU that is wanted first; PyTorch is as if it were not there,
    so that no variant is chosen for it."""
    here = {**facts(), "torch": None}
    here["gpus"] = sorted(here["gpus"], key=lambda gpu: gpu["index"] != device)
    return here


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
        for segment in _program(bundle, variant, method).segments:
            if segment.graph is not None:
                ops = dict.fromkeys(str(n.get("op")) for n in segment.graph.get("nodes", ()))
                named = ", ".join(list(ops)[:_SHOWN]) + (", ..." if len(ops) > _SHOWN else "")
                return f"segment {segment.name} of {variant} needs PyTorch: it runs {named}"
            ref = described.engines.get(segment.name)
            kind = "reference" if ref is None else ref.kind
            if kind not in TENSORRT_KINDS:
                return f"segment {segment.name} of {variant} needs PyTorch: its kind is {kind}"
    return None


def _program(bundle: Bundle, variant: str, method: str) -> Program:
    return program.from_json(bundle.json(bundle.manifest.variants[variant].programs[method]))


class _Loader:
    """Loads the engines of one variant."""

    def __init__(
        self, bundle: Bundle, choice: Choice, own: Mapping[str, Finished], trust: bool
    ) -> None:
        self._bundle, self._choice, self._own, self._trust = bundle, choice, own, trust
        self._refs = bundle.manifest.variants[choice.variant].engines
        self.trt: Any = None

    def route(self, method: str) -> Route:
        """A method's route, with its engines."""
        manifest, described = self._bundle.manifest, self._bundle.manifest.methods[method]
        steps = _program(self._bundle, self._choice.variant, method)
        wiring.check(steps, self._bundle.weights)
        tensors = [name for name in steps.inputs if name is not None]
        types = {n: s.dtype for n, s in zip(tensors, described.inputs, strict=True)}
        slots = {slot.name: slot.dtype for slot in manifest.state}
        types |= {slot.input: slots[slot.slot] for slot in steps.state}
        for name, constant in (steps.constants or {}).items():
            types[name] = by_safetensors(stored(self._bundle, constant).dtype).name
        loaded = []
        for segment in steps.segments:
            assert segment.network is not None
            portable = network.from_bytes(self._bundle.member(segment.network))
            inputs, outputs = wiring.order(segment, portable)
            for name in outputs:
                types[segment.outputs[name]] = portable.tensors[name].dtype
            loaded.append(self._engine(segment, portable, tuple(inputs), tuple(outputs)))
        return route(steps, described, loaded, types)

    def _engine(
        self,
        segment: Segment,
        portable: network.Network,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
    ) -> SegmentEngine:
        own, ref = self._own.get(segment.name), self._refs[segment.name]
        with phase("map"):
            if own is not None:
                plan, record, trust = own_blob(segment.name, own), own.record, True
            elif ref.member is not None:
                plan, record = self._bundle.member(ref.member), ref.record
                trust = self._trust or carries_code(ref)
            else:
                raise DeviceError(
                    f"segment {segment.name} has no engine here",
                    hint="let this device build it, trtpack finish does",
                )
        kind = ref.kind if own is None else own.kind
        self.trt = _find.imported(tensorrt_module(kind))
        try:
            with phase("deserialise"):
                runtime, engine, log = _load.deserialized(self.trt, plan, record, trust=trust)
                if record.get("refit"):
                    _refit.refit(self.trt, engine, log, self._bundle.weights)
            return SegmentEngine(
                segment.name,
                runtime,
                engine,
                log,
                inputs,
                outputs,
                portable.outputs_by_data(),
                {t.name: t.shape for t in portable.inputs if dims.is_static(t.shape)},
                self.trt,
                own_scratch=kind != "tensorrt",
                capturable=not any(KINDS[layer.kind].sized_by_data for layer in portable.layers),
            )
        except BundleError as error:
            if own is None:
                raise
            raise UnreadableEngineError(segment.name, error) from error
