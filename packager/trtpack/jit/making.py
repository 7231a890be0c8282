# SPDX-License-Identifier: Apache-2.0
"""From a captured graph to something that can be called: the stages of a build, without a bundle.

Engines come from the store that builds of bundles use, so what one process built the next one
loads.
"""

from __future__ import annotations

import functools
import itertools
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from trtpack.building import (
    MAX_ATTEMPTS,
    Assembly,
    Machine,
    assemble_all,
    bench_for,
    build_engines,
    look_around,
)
from trtpack.calibration.request import Quantization
from trtpack.capture import Captured
from trtpack.converters import load_module
from trtpack.engine_options import TENSORRT_KINDS, check_engine_options, kind_for
from trtpack.engines import BuiltEngine
from trtpack.errors import ConfigError
from trtpack.lowering import Lowered, lower
from trtpack.options import Options, Pin
from trtpack.planning import Planned, again, plan
from trtpack.precision.deciding import names
from trtpack.precision.names import check_precision
from trtpack.precision.plan import QUANTIZED, WEIGHTS_ONLY, Request, matched
from trtpack.program import Assembled
from trtpack.report import Progress
from trtpack.target import NATIVE, Target, find_target
from trtpack_runtime import wiring
from trtpack_runtime.call_plan import CallPlan
from trtpack_runtime.engines import LoadContext, Runner, engine
from trtpack_runtime.errors import BuildCancelled, DeviceError, EngineBuildError, TrtpackError
from trtpack_runtime.execution import LoadedSegment
from trtpack_runtime.program import Segment
from trtpack_runtime.segment_loading import PORTABLE

_LOG = logging.getLogger("trtpack.jit")


@dataclass(frozen=True)
class Workshop:
    """For whom and how graphs are compiled; ``machine`` is this one."""

    target: Target
    options: Options
    machine: Machine

    @property
    def kind(self) -> str:
        """The kind of its engines."""
        return kind_for(self.options, self.target)


@dataclass(frozen=True)
class Place:
    """Where a graph runs: the device, and the parameters that are there, by their names."""

    device: torch.device
    parameters: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Made:
    """A graph ready to be called: what its program runs on, how, and why not on an engine.

    ``kinds`` are those of the segments in their order; ``failed`` says, by segment, why one that
    was to have an engine runs in PyTorch. ``weights`` keeps alive what engines only point at.
    """

    plan: CallPlan
    planned: Planned
    kinds: tuple[str, ...]
    weights: Mapping[str, torch.Tensor]
    failed: Mapping[str, str] = field(default_factory=dict)


@functools.cache
def workshop(options: Options, on_gpu: bool, elsewhere: bool = False) -> Workshop:
    """Where graphs of a device are compiled; with ``elsewhere`` the target may be another machine,
    which only plans.

    Raises:
        ConfigError: the options ask for what the target cannot do, or for another machine.
        DeviceError: with ``strict``, no TensorRT for this machine's GPU.
    """
    for module in options.converters:
        load_module(module)
    target = _target(options, on_gpu, elsewhere)
    check_engine_options(options, [target])
    check_precision(options, [target])
    return Workshop(target, options, look_around(options, [target]))


def planned(captured: Captured, shop: Workshop, samples: Sequence[torch.Tensor]) -> Planned:
    """Lowers and divides a graph; ``samples`` are its inputs in one call, to measure ranges on."""
    return plan(_lowered(captured, shop, samples), shop.target, shop.options)


def make(
    captured: Captured,
    shop: Workshop,
    place: Place,
    samples: Sequence[torch.Tensor],
    label: str,
) -> Made:
    """Compiles a graph for this machine; what has no engine runs in PyTorch.

    Raises:
        TrtpackError: a stage failed, or (strict) an engine.
    """
    options = shop.options
    item = planned(captured, shop, samples)
    with tempfile.TemporaryDirectory(prefix="trtpack-jit-") as name:
        folder = Path(name)
        bench = bench_for(label, options, shop.machine, folder)
        built: Mapping[str, BuiltEngine] = {}
        failed: dict[str, str] = {}
        for attempt in itertools.count(1):
            assembly = assemble_all([captured], [item], folder)
            bench = replace(bench, weights=assembly.stored.path)
            search = not (options.strict or options.locked) and attempt < MAX_ATTEMPTS
            try:
                found = build_engines(item, assembly, bench, Progress(), search=search)
            except BuildCancelled:
                raise
            except EngineBuildError as error:
                if options.strict:
                    raise
                failed = dict.fromkeys(_segments(assembly, item), error.message)
                break
            built = found.built
            if not any(found.refused.values()):
                break
            refused = {(shop.target.name, name): nodes for name, nodes in found.refused.items()}
            item = again(item, refused, options)
        return _Loading(assembly, item, built, failed, place, options).made()


def _target(options: Options, on_gpu: bool, elsewhere: bool) -> Target:
    (name,) = options.targets
    asked = name.strip().lower()
    if asked not in ("auto", NATIVE, "cpu"):
        target = find_target(name, options.engine)
        if options.engine != PORTABLE and not elsewhere:
            raise ConfigError(
                f"torch.compile builds for this machine, not for {target.name}",
                hint='leave the target away, or add "engine": "reference" to compute as it would',
            )
        return target
    if not on_gpu:
        return find_target("cpu", options.engine)
    try:
        return find_target(NATIVE, options.engine)
    except DeviceError:
        if options.strict or options.engine is not None:
            raise
        return find_target(NATIVE, "inductor")


def _lowered(captured: Captured, shop: Workshop, samples: Sequence[torch.Tensor]) -> Lowered:
    options, request = shop.options, None
    pins = _meant(options.pins, captured)
    if options.precision is not None or pins:
        named = [n for n in captured.inputs if n is not None]
        on_host = [sample.cpu() for sample in samples]
        given = (dict(zip(named, on_host, strict=True)),) if samples else ()
        request = Request(options.precision, pins, given)
    lowered = lower(
        captured,
        keep_doubles=options.strict_dtypes or shop.target.engine_kind not in TENSORRT_KINDS,
        precision=request,
        quantization=_of_weights(options, pins),
        pruned=options.prune is not None,
    )
    for name, count in ((n, c) for n, c in lowered.effects.items() if c):
        _LOG.info("pass %s: %d", name, count)
    return lowered


def _of_weights(options: Options, pins: tuple[Pin, ...]) -> Quantization | None:
    """What weights alone are rounded to, which needs no data."""
    if options.precision not in WEIGHTS_ONLY:
        return None
    few, block = QUANTIZED[options.precision], options.weight_block
    return Quantization(few, pins=pins, block=block, stored=True, partial=True)


def _meant(pins: Sequence[Pin], captured: Captured) -> tuple[Pin, ...]:
    """The pins that mean an operator of this graph; others may mean one of the model's others."""
    nodes = [n for n in captured.graph_module.graph.nodes if n.op == "call_function"]
    called = {name for node in nodes for name in names(node)}
    return tuple(pin for pin in pins if matched(pin, sorted(called)))


def _assembled(assembly: Assembly, item: Planned) -> Assembled:
    return assembly.programs[item.target.name][item.method]


def _segments(assembly: Assembly, item: Planned) -> list[str]:
    return [segment.name for segment in _assembled(assembly, item).program.segments]


class _Loading:
    """Loads what was built, and PyTorch in the place of what was not."""

    def __init__(
        self,
        assembly: Assembly,
        item: Planned,
        built: Mapping[str, BuiltEngine],
        failed: dict[str, str],
        place: Place,
        options: Options,
    ) -> None:
        self._assembled, self._item = _assembled(assembly, item), item
        self._built, self._failed = built, failed
        self._device, self._strict = place.device, options.strict
        stored = assembly.stored
        there = {stored.names["parameters"][n]: t for n, t in place.parameters.items()}
        tensors = {**stored.store.every(), **there}
        self._weights = {name: tensor.to(place.device) for name, tensor in tensors.items()}

    def made(self) -> Made:
        """Every segment loaded, and the program ready to be called."""
        program = self._assembled.program
        wiring.check(program, self._weights)
        segments = [self._segment(segment) for segment in program.segments]
        return Made(
            CallPlan(program, segments, self._weights),
            self._item,
            tuple(segment.kind for segment in segments),
            self._weights,
            self._failed,
        )

    def _segment(self, segment: Segment) -> LoadedSegment:
        kind, runner = PORTABLE, None
        built = self._built.get(segment.name)
        if built is not None:
            try:
                runner, kind = self._engine(segment, built), built.kind
            except (TrtpackError, RuntimeError, OSError) as error:
                if self._strict:
                    raise
                self._failed[segment.name] = str(error).partition("\n")[0]
        if runner is None:
            runner = engine(PORTABLE).load(None, self._context(segment))
        network = self._assembled.networks.get(segment.name)
        return LoadedSegment.of(segment, network, kind, runner)

    def _engine(self, segment: Segment, built: BuiltEngine) -> Runner:
        if built.path is None:
            raise EngineBuildError(str(built.failed or built.deferred))
        blob = built.path if built.kind == "inductor" else memoryview(built.path.read_bytes())
        context = replace(self._context(segment), record=built.record or {}, trust=True)
        return engine(built.kind).load(blob, context)

    def _context(self, segment: Segment) -> LoadContext:
        network = self._assembled.networks.get(segment.name)
        return LoadContext(segment, self._weights, self._device, network)
