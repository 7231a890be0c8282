# SPDX-License-Identifier: Apache-2.0
"""Builds the engines of a target; what TensorRT cannot build is found, for another plan."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtpack_runtime.compiling import constants_of
from trtpack_runtime.device import facts
from trtpack_runtime.engine_store import EngineStore
from trtpack_runtime.errors import BuildCancelled, BuildKilled, EngineBuildError
from trtpack_runtime.network import Network
from trtpack_runtime.tactics import Tactics, TacticStore

from .bisect import offending_layers, said
from .capture import Captured, attribute
from .compilable import why_eager
from .convert import node_of, signature
from .engine_options import TENSORRT_KINDS, kind_for
from .engines import (
    Bench,
    BuiltEngine,
    Job,
    build_engine,
    builder_name,
    cannot_build_here,
    probe,
)
from .options import Options
from .packing import Stored, store_parameters, write_weights
from .planning import Planned
from .program import Assembled, assemble
from .report import Progress
from .segments import PlannedSegment
from .tactic_book import TacticBook, read_tactics
from .target import Target
from .weights import WeightStore
from .work_folder import is_full

_LOG = logging.getLogger("trtpack.building")

MAX_ATTEMPTS = 8
"""How often a graph is planned again because TensorRT refused a part of it."""


@dataclass(frozen=True)
class Assembly:
    """Every target's programs by method, and the weights that all of them read."""

    stored: Stored
    programs: Mapping[str, Mapping[str, Assembled]]


@dataclass(frozen=True)
class Machine:
    """This machine's facts (``trtpack_runtime.device.facts``) and the tactics known on it."""

    facts: Mapping[str, Any]
    tactics: TacticBook


@dataclass(frozen=True)
class Engines:
    """A plan's engines by segment, and what TensorRT refused: segment -> graph node -> reason."""

    built: Mapping[str, BuiltEngine]
    refused: Mapping[str, Mapping[str, str]]


def look_around(options: Options, targets: Sequence[Target]) -> Machine:
    """This machine, and the tactics known here; done before the work starts.

    Raises:
        TrtpackError: tactics were given that cannot be read, or are of no target's GPU; or there
            are none to lock a target to.
    """
    here = facts()
    given = read_tactics(options.tactics, here) if options.tactics is not None else ()
    book = TacticBook(options, here, TacticStore() if options.cache else None, given)
    full = [t for t in targets if kind_for(options, t) == "tensorrt"]
    leaves = options.defer or options.on is not None
    mine = [t for t in full if not leaves and cannot_build_here("tensorrt", t, here) is None]
    others = [t for t in full if t not in mine]
    book.check_given(mine, others)
    for target in mine:
        book.known(target)
    for target in others:
        book.left_to(target)
    return Machine(here, book)


def bench_for(model: str, options: Options, machine: Machine, folder: Path) -> Bench:
    """Where a model's engines are built; without the user's cache, what is built is kept in
    ``folder`` for as long as that is there."""
    kept = EngineStore() if options.cache else EngineStore(folder / "engines")
    return Bench(model, options, machine.facts, folder, folder, kept, machine.tactics)


def tactics_for(target: Target, engines: Mapping[str, BuiltEngine], bench: Bench) -> Tactics | None:
    """The tactics that go into the bundle for a target."""
    built = [e for e in engines.values() if e.kind == "tensorrt"]
    if not built:
        return None
    return bench.tactics.for_bundle(target, built_here=any(e.path is not None for e in built))


def assemble_all(methods: Iterable[Captured], planned: Sequence[Planned], folder: Path) -> Assembly:
    """Writes plans as programs and the weights they read as one file."""
    store = WeightStore()
    names: dict[str, dict[str, str]] = {}
    for captured in methods:
        for kind, found in store_parameters(captured, store).items():
            names.setdefault(kind, {}).update(found)
        for state in captured.state:
            store.put(state.slot, attribute(captured.graph_module, state.slot))
    programs: dict[str, dict[str, Assembled]] = {}
    for p in planned:
        made = assemble(p.lowered.captured, p.plan, p.converted, store, p.method)
        programs.setdefault(p.target.name, {})[p.method] = made
    return Assembly(write_weights(store, names, folder), programs)


def build_engines(
    item: Planned,
    assembly: Assembly,
    bench: Bench,
    progress: Progress,
    *,
    search: bool,
) -> Engines:
    """Builds or defers every segment's engine. What AOTInductor fails on stays uncompiled; where it
    is all that a target has, not with ``strict``.

    A segment that TensorRT fails on does not end the build: the nodes of the layers that are to
    blame are answered, and the other segments are built. Without ``search`` the failure is raised.

    Raises:
        EngineBuildError: TensorRT failed and no layer is to blame, or the build was stopped.
    """
    engines: dict[str, BuiltEngine] = {}
    refused: dict[str, dict[str, str]] = {}
    for job in _jobs(item, assembly):
        name = job.segment.name
        try:
            with progress.step(f"{item.target.name}: engine of {name}") as step:
                built = build_engine(job, item.target, bench, step.detail)
        except BuildCancelled:
            raise
        except EngineBuildError as error:
            optional = _has_layers(item.target, bench) or not bench.options.strict
            if job.network is None and optional and not is_full(bench.folder):
                engines[name] = _uncompiled(name, error)
                continue
            if isinstance(error, BuildKilled):
                raise
            if not search or job.network is None or not _has_layers(item.target, bench):
                raise
            _LOG.warning("%s: %s", item.target.name, error)
            nodes = _blamed(error, job.network, item.target, bench, progress)
            if not nodes - item.failed.keys():
                raise
            reason = f"{builder_name(item.target, bench)} refused it: {said(error, name)}"
            refused[name] = dict.fromkeys(sorted(nodes), reason)
        else:
            if built is not None:
                engines[built.segment] = built
    return Engines(engines, refused)


def _has_layers(target: Target, bench: Bench) -> bool:
    return kind_for(bench.options, target) in TENSORRT_KINDS


def _uncompiled(segment: str, error: EngineBuildError) -> BuiltEngine:
    """What could not be compiled, and PyTorch runs as it is."""
    _LOG.info("%s", error)
    return BuiltEngine(segment, "inductor", failed=str(error).splitlines()[0])


def _blamed(
    error: EngineBuildError, network: Network, target: Target, bench: Bench, progress: Progress
) -> set[str]:
    """The graph nodes whose layers make the build fail."""
    with progress.step(f"{target.name}: find the layers that fail") as step:
        built = 0

        def attempt(part: Network) -> None:
            nonlocal built
            built += 1
            step.detail(f"part {built}, {len(part.layers)} layers")
            probe(part, target, bench)

        return {node_of(layer) for layer in offending_layers(network, error, attempt)}


def _jobs(item: Planned, assembly: Assembly) -> Iterator[Job]:
    planned = {segment.name: segment for segment in item.plan.segments}
    assembled = assembly.programs[item.target.name][item.method]
    store, ranges = assembly.stored.store, item.lowered.captured.ranges
    for segment in assembled.program.segments:
        network = assembled.networks.get(segment.name)
        compiled = _is_compiled(planned[segment.name], item.target)
        inputs, profile = None, None  # what runs operator by operator may take any sizes
        if compiled or network is not None:
            inputs, profile = signature(planned[segment.name].graph_module, ranges)
        names = (
            [c.data for c in network.constants.values()]
            if network is not None
            else constants_of(segment.graph)
        )
        digests = {name: store.digest(name) for name in names}
        yield Job(segment, inputs or (), profile, network, digests, compiled)


def _is_compiled(segment: PlannedSegment, target: Target) -> bool:
    """Whether PyTorch's segment is to be compiled: between engines only what is sure to serve."""
    between = segment.kind == "torch" and target.engine_kind in TENSORRT_KINDS
    why = why_eager(segment.graph_module) if between else None
    if why is not None:
        _LOG.info("%s is not compiled: %s", segment.name, why)
    return segment.compiled and why is None
