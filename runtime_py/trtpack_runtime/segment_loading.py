# SPDX-License-Identifier: Apache-2.0
"""Loads the segments of a program: each on its engine, and in PyTorch what has none that loads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from . import network, wiring
from .atomic import cannot_write
from .bundle import Bundle
from .device_faults import device_fault, naming_faults
from .engine_file import OwnFile, UnreadableEngineError
from .engines import LoadContext, Runner, engine
from .errors import BundleError, ConfigError, DeviceError, DeviceLostError, TrtpackError
from .execution import LoadedSegment, Segments
from .network import Network
from .phases import phase
from .picking import Picked, pick
from .program import Program, Segment
from .resolve import Choice
from .weight_changes import Changes, reads, untaken

PORTABLE = "reference"
"""The kind that runs any segment, wherever PyTorch is."""


def load_segments(
    bundle: Bundle,
    choice: Choice,
    programs: Iterable[Program],
    constants: Mapping[str, torch.Tensor],
    device: torch.device,
    own: Mapping[str, OwnFile] | None = None,
    *,
    trust: bool = False,
    options: Mapping[str, Any] | None = None,
    avoided: Mapping[str, str] | None = None,
    changes: Changes | None = None,
    kept: Segments | None = None,
) -> Segments:
    """Loads every segment: on its engine where that fits, else in PyTorch on the same device.

    An engine that is damaged or refuses to load leaves its segment to PyTorch; the answer's
    ``failed`` says why.

    Args:
        bundle: the bundle.
        choice: the variant, and which of its engines fit.
        programs: its methods' programs.
        constants: the stored tensors, which move to the device when they are asked for.
        device: where to run.
        own: engines of this machine that take the place of the bundle's, by segment.
        trust: machine code of the bundle may run.
        options: ``LoadContext``'s; with ``"strict"`` an engine that does not load is an error.
        avoided: engines not to load, by segment, and why.
        changes: weights that are not the bundle's; engines that cannot take them leave their
            segment to PyTorch.
        kept: segments that are loaded already and stay.

    Raises:
        BundleError: a program that does not hold together, or (strict) an engine that cannot be
            loaded; UnreadableEngineError where one of ``own`` cannot be read.
        DeviceError: the device has no room even for PyTorch, or (strict) for an engine;
            DeviceLostError where it failed for good.
    """
    refs = bundle.manifest.variants[choice.variant].engines
    loader = _Loader(bundle, constants, device, options or {}, changes or Changes())
    methods: dict[str, tuple[LoadedSegment, ...]] = {}
    failed: dict[str, str] = {}
    there = {s.name: s for loaded in (kept.methods.values() if kept else ()) for s in loaded}
    for program in programs:
        wiring.check(program, constants)
        for name in (program.constants or {}).values():
            constants[name]  # a Placed one moves now, not at the first call
        loaded = []
        for segment in program.segments:
            name, picked = segment.name, None
            if kept is not None and name in there:
                loaded.append(there[name])
                failed |= {name: kept.failed[name]} if name in kept.failed else {}
                continue
            if name not in (avoided or {}):
                picked = pick(choice, name, refs.get(name), (own or {}).get(name), trust=trust)
            made, reason = loader.load(segment, picked)
            loaded.append(made)
            reason = (avoided or {}).get(name, reason)
            if reason is not None:
                failed[name] = reason
        methods[program.method] = tuple(loaded)
    return Segments(methods, failed)


def in_pytorch(
    segments: Segments,
    name: str,
    reason: str,
    bundle: Bundle,
    programs: Iterable[Program],
    constants: Mapping[str, torch.Tensor],
    device: torch.device,
) -> Segments:
    """The same segments, one of them in PyTorch for a reason that ``failed`` tells.

    Raises:
        DeviceError: the device has no room for it.
    """
    loader = _Loader(bundle, constants, device, {})
    methods = {}
    for program in programs:
        pairs = zip(program.segments, segments.methods[program.method], strict=True)
        with naming_faults():
            methods[program.method] = tuple(
                loader.load(segment, None)[0] if segment.name == name else loaded
                for segment, loaded in pairs
            )
    return Segments(methods, {**segments.failed, name: reason})


@dataclass(frozen=True)
class _Loader:
    bundle: Bundle
    constants: Mapping[str, torch.Tensor]
    device: torch.device
    options: Mapping[str, Any]
    changes: Changes = field(default_factory=Changes)

    def load(self, segment: Segment, picked: Picked | None) -> tuple[LoadedSegment, str | None]:
        """The segment on an engine, or in PyTorch with the reason why not on the engine."""
        portable = None
        if segment.network is not None:
            portable = network.from_bytes(self.bundle.member(segment.network))
        untakeable = untaken(segment, portable, picked, self.changes.stored)
        if picked is None or untakeable is not None:
            runner = self._portable(segment, portable)
            reason = untakeable and f"its engine was built with other weights, and {untakeable}"
            return LoadedSegment.of(segment, portable, PORTABLE, runner), reason
        if reads(segment, portable) & self.changes.stored.keys():
            picked = replace(picked, record={**picked.record, "refit": True})
        try:
            runner = self._engine(segment, portable, picked)
        except (TrtpackError, RuntimeError, MemoryError, OSError) as error:
            reason = self._refusal(error, segment, picked)
        else:
            return LoadedSegment.of(segment, portable, picked.kind, runner), None
        runner = self._portable(segment, portable)
        return LoadedSegment.of(segment, portable, PORTABLE, runner), reason

    def _refusal(self, error: Exception, segment: Segment, picked: Picked) -> str:
        """Why an engine does not load; raises what PyTorch in its place would be no answer to."""
        if isinstance(error, BundleError) and picked.own is not None:
            if isinstance(error, UnreadableEngineError):
                raise error
            raise UnreadableEngineError(segment.name, error) from error
        told = error if isinstance(error, TrtpackError) else device_fault(error)
        if isinstance(error, OSError):
            told = cannot_write(Path(error.filename or tempfile.gettempdir()), error)
        if not isinstance(told, (BundleError, DeviceError, ConfigError)):
            raise error
        if self.options.get("strict") or isinstance(told, DeviceLostError):
            raise told from (None if told is error else error)
        return told.message

    def _engine(self, segment: Segment, portable: Network | None, picked: Picked) -> Runner:
        blob = picked.blob(self.bundle)
        tensorrt = picked.kind.startswith("tensorrt")
        weights = self.changes.weights(self.bundle) if tensorrt else {}
        context = LoadContext(
            segment,
            self.constants,
            self.device,
            portable,
            self.options,
            weights=weights,
            record=picked.record,
            trust=picked.trust,
        )
        with phase("deserialise"):
            return engine(picked.kind).load(blob, context)

    def _portable(self, segment: Segment, portable: Network | None) -> Runner:
        if portable is not None:
            for constant in portable.constants.values():
                if constant.data in self.constants:
                    self.constants[constant.data]
        context = LoadContext(segment, self.constants, self.device, portable, self.options)
        return engine(PORTABLE).load(None, context)
