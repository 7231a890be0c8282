# SPDX-License-Identifier: Apache-2.0
"""Builds the engines of a target; what TensorRT cannot build is found, for another plan."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtpack_runtime.device import facts
from trtpack_runtime.engine_store import EngineStore
from trtpack_runtime.errors import BuildCancelled, BuildKilled, EngineBuildError
from trtpack_runtime.network import Network
from trtpack_runtime.tactics import Tactics, TacticStore

from .bisect import offending_layers
from .capture import Captured
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
from .planning import METHOD, Planned
from .program import Assembled, assemble
from .report import Progress
from .tactic_book import TacticBook, read_tactics
from .target import Target
from .weights import WeightStore

_LOG = logging.getLogger("trtpack.building")
_LONGEST_REASON = 240


@dataclass(frozen=True)
class Assembly:
    """Every target's program, and the weights that all of them read."""

    stored: Stored
    programs: Mapping[str, Assembled]


@dataclass(frozen=True)
class Machine:
    """This machine's facts (``trtpack_runtime.device.facts``) and the tactics known on it."""

    facts: Mapping[str, Any]
    tactics: TacticBook


@dataclass(frozen=True)
class Engines:
    """A target's engines by segment, and what TensorRT refused: graph node -> reason."""

    built: Mapping[str, BuiltEngine]
    refused: Mapping[str, str]


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
    book.check_given(full)
    for target in full:
        if cannot_build_here("tensorrt", target, here) is None:
            book.known(target)
        else:
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


def assemble_all(captured: Captured, planned: Sequence[Planned], folder: Path) -> Assembly:
    """Writes plans as programs and the weights they read as one file."""
    store = WeightStore()
    names = store_parameters(captured, store)
    programs = {
        p.target.name: assemble(captured, p.plan, p.converted, store, METHOD) for p in planned
    }
    return Assembly(write_weights(store, names, folder), programs)


def build_engines(
    item: Planned,
    captured: Captured,
    assembly: Assembly,
    bench: Bench,
    progress: Progress,
    *,
    search: bool,
) -> Engines:
    """Builds or defers every segment's engine.

    A segment that TensorRT fails on does not end the build: the nodes of the layers that are to
    blame are answered, and the other segments are built. Without ``search`` the failure is raised.

    Raises:
        EngineBuildError: TensorRT failed and no layer is to blame, or the build was stopped.
    """
    engines: dict[str, BuiltEngine] = {}
    refused: dict[str, str] = {}
    for job in _jobs(item, captured, assembly):
        name = job.segment.name
        try:
            with progress.step(f"{item.target.name}: engine of {name}") as step:
                built = build_engine(job, item.target, bench, step.detail)
        except (BuildCancelled, BuildKilled):
            raise
        except EngineBuildError as error:
            if not search or job.network is None or not _has_layers(item.target, bench):
                raise
            _LOG.warning("%s: %s", item.target.name, error)
            nodes = _blamed(error, job.network, item.target, bench, progress)
            if not nodes - item.failed.keys():
                raise
            reason = f"{builder_name(item.target, bench)} refused it: {_said(error, name)}"
            refused.update(dict.fromkeys(sorted(nodes), reason))
        else:
            if built is not None:
                engines[built.segment] = built
    return Engines(engines, refused)


def _has_layers(target: Target, bench: Bench) -> bool:
    return kind_for(bench.options, target) in TENSORRT_KINDS


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


def _said(error: EngineBuildError, name: str) -> str:
    """What TensorRT said, in one line of bearable length."""
    text = " ".join(str(error).split()).removeprefix(f"{name}: ")
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def _jobs(item: Planned, captured: Captured, assembly: Assembly) -> Iterator[Job]:
    graphs = {segment.name: segment.graph_module for segment in item.plan.segments}
    assembled, store = assembly.programs[item.target.name], assembly.stored.store
    for segment in assembled.program.segments:
        network = assembled.networks.get(segment.name)
        inputs, profile = signature(graphs[segment.name], captured.ranges)
        names = (
            [c.data for c in network.constants.values()]
            if network is not None
            else _constants_of(segment.graph)
        )
        digests = {name: store.digest(name) for name in names}
        yield Job(segment, inputs, profile, network, digests)


def _constants_of(value: object) -> list[str]:
    if isinstance(value, dict):
        name = value.get("constant")
        if len(value) == 1 and isinstance(name, str):
            return [name]
        return [n for part in value.values() for n in _constants_of(part)]
    if isinstance(value, list):
        return [n for part in value for n in _constants_of(part)]
    return []
