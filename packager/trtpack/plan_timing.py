# SPDX-License-Identifier: Apache-2.0
"""Times several plans of one model on this machine, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trtpack_runtime.engines import LoadContext, engine
from trtpack_runtime.execution import LoadedSegment, Segments
from trtpack_runtime.segment_loading import PORTABLE

from .capture import Captured, attribute
from .program import Assembled

Call = Callable[[], list[Any]]

_TURN_S = 0.02
"""How long one plan is called before it is another's turn, at the least."""


def callable_plan(
    captured: Captured,
    assembled: Assembled,
    stored: Mapping[str, torch.Tensor],
    built: Mapping[str, tuple[str, Path, Mapping[str, Any]]],
    inputs: Sequence[torch.Tensor],
    device: torch.device,
) -> Call:
    """A program that is called with ``inputs``, on the engines that were ``built``: by segment
    their kind, file and record. A segment without one runs in PyTorch. State starts anew in each
    call."""
    loaded = []
    for segment in assembled.program.segments:
        network = assembled.networks.get(segment.name)
        kind, path, record = built.get(segment.name, (PORTABLE, None, {}))
        weights: Any = stored if kind.startswith("tensorrt") else {}
        context = LoadContext(
            segment, stored, device, network, {}, weights=weights, record=record, trust=True
        )
        runner = engine(kind).load(path, context)
        loaded.append(LoadedSegment.of(segment, network, kind, runner))
    program = assembled.program
    plan = Segments({program.method: tuple(loaded)}).plan(program, stored)
    module = captured.graph_module
    states = {slot.slot: attribute(module, slot.slot).to(device) for slot in captured.state}

    def call() -> list[Any]:
        own = [states[slot.slot].clone() for slot in program.state]
        return plan.outputs(plan.run(plan.values(inputs, own)))

    return call


def in_turns(
    calls: Mapping[str, Call],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """The seconds of a call of each, one figure a round: all are called in every round.

    Those that are fast are called several times for one figure. Every round starts with another.
    ``clock`` is what figures are read off; ``seconds`` of it go by.
    """
    with torch.no_grad():
        counts = {name: _count(call, clock) for name, call in calls.items()}
        found: dict[str, list[float]] = {name: [] for name in calls}
        names, end = list(calls), clock() + seconds
        while clock() < end or len(found[names[0]]) < 5:
            for name in names:
                start = clock()
                for _ in range(counts[name]):
                    calls[name]()
                _wait()
                found[name].append((clock() - start) / counts[name])
            names = [*names[1:], names[0]]
    return found


def _count(call: Call, clock: Callable[[], float]) -> int:
    call()
    _wait()
    start = clock()
    call()
    _wait()
    return max(1, round(_TURN_S / max(clock() - start, 1e-6)))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
