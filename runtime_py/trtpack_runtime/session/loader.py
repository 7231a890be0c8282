# SPDX-License-Identifier: Apache-2.0
"""Loads the TensorRT engines of a variant's methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import dims, network, program, wiring
from ..bundle import Bundle
from ..dtypes import by_safetensors
from ..engine_file import OwnFile, UnreadableEngineError
from ..engines import _find, _load, _refit, tensorrt_module
from ..errors import BundleError, DeviceError
from ..layers import KINDS
from ..network import Network
from ..phases import phase
from ..picking import Picked, pick
from ..program import Program, Segment
from ..resolve import Choice
from .engine import SegmentEngine
from .route import Route, route
from .stored import stored


def program_of(bundle: Bundle, variant: str, method: str) -> Program:
    """A method's program on a variant; BundleError where it is damaged."""
    return program.from_json(bundle.json(bundle.manifest.variants[variant].programs[method]))


def segments_of(programs: Iterable[Program]) -> Iterator[Segment]:
    """The segments of some programs."""
    for steps in programs:
        yield from steps.segments


class Loader:
    """Loads the engines of one variant; ``own`` are this machine's own by segment."""

    def __init__(
        self, bundle: Bundle, choice: Choice, own: Mapping[str, OwnFile], trust: bool
    ) -> None:
        self._bundle, self._choice, self._own, self._trust = bundle, choice, own, trust
        self._refs = bundle.manifest.variants[choice.variant].engines
        self.trt: Any = None
        """The TensorRT module, once an engine is loaded."""

    def picked(self, segment: Segment) -> tuple[Picked, Network]:
        """A segment's engine, and its portable network.

        Raises:
            DeviceError: there is no engine for it here.
        """
        name = segment.name
        found = pick(
            self._choice, name, self._refs.get(name), self._own.get(name), trust=self._trust
        )
        if found is None or segment.network is None:
            raise DeviceError(
                f"segment {name} has no engine here",
                hint="let this device build it, trtpack finish does",
            )
        return found, network.from_bytes(self._bundle.member(segment.network))

    def route(self, steps: Program) -> Route:
        """A method's route, with its engines.

        Raises:
            BundleError: a program or an engine that is damaged, or of another TensorRT or GPU;
                UnreadableEngineError where that is one of this machine's own.
            DeviceError: the GPU has no room, or TensorRT is not there.
        """
        manifest, described = self._bundle.manifest, self._bundle.manifest.methods[steps.method]
        wiring.check(steps, self._bundle.weights)
        tensors = [name for name in steps.inputs if name is not None]
        types = {n: s.dtype for n, s in zip(tensors, described.inputs, strict=True)}
        slots = {slot.name: slot.dtype for slot in manifest.state}
        types |= {slot.input: slots[slot.slot] for slot in steps.state}
        for name, constant in (steps.constants or {}).items():
            types[name] = by_safetensors(stored(self._bundle, constant).dtype).name
        loaded = []
        for segment in steps.segments:
            found, portable = self.picked(segment)
            for name in portable.outputs:
                types[segment.outputs[name]] = portable.tensors[name].dtype
            loaded.append(self._engine(segment, found, portable))
        return route(steps, described, loaded, types)

    def _engine(self, segment: Segment, found: Picked, portable: Network) -> SegmentEngine:
        inputs, outputs = wiring.order(segment, portable)
        with phase("map"):
            plan = found.blob(self._bundle)
        self.trt = _find.imported(tensorrt_module(found.kind))
        try:
            with phase("deserialise"):
                runtime, engine, log = _load.deserialized(
                    self.trt, plan, found.record, trust=found.trust
                )
                if found.record.get("refit"):
                    _refit.refit(self.trt, engine, log, self._bundle.weights)
            return SegmentEngine(
                segment.name,
                runtime,
                engine,
                log,
                tuple(inputs),
                tuple(outputs),
                portable.outputs_by_data(),
                {t.name: t.shape for t in portable.inputs if dims.is_static(t.shape)},
                self.trt,
                own_scratch=found.kind != "tensorrt",
                capturable=not any(KINDS[layer.kind].sized_by_data for layer in portable.layers),
            )
        except BundleError as error:
            if found.own is None:
                raise
            raise UnreadableEngineError(segment.name, error) from error
