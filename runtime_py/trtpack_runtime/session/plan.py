# SPDX-License-Identifier: Apache-2.0
"""Where the values of a call lie, for the inputs' shapes: decided once, then kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..dtypes import DTYPES
from .arrays import Shape
from .cuda import Cuda
from .engine import Context
from .memory import Block, aligned
from .route import Route, Step

ContextFor = Callable[[Step, tuple[Shape, ...]], Context]


@dataclass(eq=False)
class Plan:
    """A method at some shapes.

    ``addresses`` has each value's place by number: 0 where a call tells it (inputs, states) or
    TensorRT does (sizes told by data). ``shapes`` is None for the latter.
    """

    route: Route
    shapes: tuple[Shape | None, ...]
    nbytes: tuple[int, ...]
    contexts: tuple[Context, ...]
    step_shapes: tuple[tuple[Shape, ...], ...]
    addresses: list[int]
    arena: Block
    passed: tuple[tuple[int, int], ...]
    """Outputs that no segment computes: the value, and the place it is copied to."""
    direct: tuple[bool, ...]
    """Whether a state slot's next value is computed where the state lies."""
    inputs: Block | None = None
    calls: int = 0
    graph_contexts: tuple[Context, ...] | None = None
    graphs: dict[tuple[int, ...], Any] = field(default_factory=dict)
    refused: bool = False
    """A capture failed: it runs without graphs."""
    captures: int = 0
    last: tuple[int, ...] = ()
    stable: int = 0
    """For how many calls its inputs on the GPU have been in the same place."""
    _places: list[int] = field(default_factory=list)

    @property
    def repeatable(self) -> bool:
        """Whether a call with all inputs in the same places has all else there too."""
        route = self.route
        return not (route.states or route.by_data or self.passed or 0 in self.nbytes)

    def input_places(self, cuda: Cuda) -> list[int]:
        """Where the inputs are copied to, by input; the memory is taken when first needed."""
        if self.inputs is None:
            sizes = [aligned(self.nbytes[value]) for value in self.route.inputs]
            self.inputs = Block(cuda, max(1, sum(sizes)))
            starts = itertools.accumulate(sizes, initial=self.inputs.address)
            self._places = list(starts)[:-1]
        return self._places

    def drop(self, cuda: Cuda) -> None:
        """Gives its memory and graphs back, once the stream has nothing of it to do."""
        for graph in self.graphs.values():
            cuda.end_graph(graph)
        self.graphs.clear()
        self.arena.drop()
        if self.inputs is not None:
            self.inputs.drop()
            self.inputs = None


def make_plan(
    route: Route,
    known: Mapping[int, Shape],
    constants: Mapping[int, int],
    context_for: ContextFor,
    cuda: Cuda,
) -> Plan:
    """Works out every shape and place.

    Args:
        route: the method.
        known: the shapes of inputs, states and constants by value.
        constants: where the constants lie.
        context_for: answers the context of a step at shapes.
        cuda: the GPU to take memory of.

    Raises:
        InputMismatchError: a shape that an engine was not built for.
        DeviceError: the GPU has too little memory.
    """
    shapes: dict[int, Shape | None] = dict(known)
    contexts, step_shapes = [], []
    for step in route.steps:
        given = tuple(shapes[value] or () for value in step.inputs)
        context = context_for(step, given)
        shapes.update(zip(step.outputs, context.told(given), strict=True))
        contexts.append(context)
        step_shapes.append(given)
    count = len(route.values)
    ordered = tuple(shapes.get(value) for value in range(count))
    nbytes = tuple(_nbytes(t, s) for t, s in zip(route.types, ordered, strict=True))
    direct = _direct(route, known, ordered)
    targets = [slot.output for slot, there in zip(route.states, direct, strict=True) if there]
    places, arena = _places(route, nbytes, targets)
    copied = {v for _, v in route.outputs if v not in route.defined}
    passed, end = [], arena
    for value in sorted(copied):
        passed.append((value, end))
        end += aligned(nbytes[value])
    block = Block(cuda, max(1, end))
    addresses = [0] * count
    for value, offset in places.items():
        addresses[value] = block.address + offset
    for value, address in constants.items():
        addresses[value] = address
    return Plan(
        route,
        ordered,
        nbytes,
        tuple(contexts),
        tuple(step_shapes),
        addresses,
        block,
        tuple((value, block.address + offset) for value, offset in passed),
        direct,
    )


def _nbytes(dtype: str, shape: Shape | None) -> int:
    return 0 if shape is None else DTYPES[dtype].nbytes(math.prod(shape))


def _direct(
    route: Route, known: Mapping[int, Shape], shapes: tuple[Shape | None, ...]
) -> tuple[bool, ...]:
    """Which states' next values a segment can write to where the state lies: one slot's only."""
    targets = [slot.output for slot in route.states]
    return tuple(
        slot.output in route.defined - route.by_data
        and targets.count(slot.output) == 1
        and shapes[slot.output] == known[slot.input]
        for slot in route.states
    )


def _places(
    route: Route, nbytes: tuple[int, ...], elsewhere: list[int]
) -> tuple[dict[int, int], int]:
    """Offsets of the values that segments compute, and their end. Two that are never needed at the
    same time may share memory; the largest are placed first."""
    end = len(route.steps)
    needed = {value: end for _, value in route.outputs} | {s.output: end for s in route.states}
    lives: dict[int, tuple[int, int]] = {}
    for i, step in enumerate(route.steps):
        for value in step.outputs:
            lives[value] = (i, needed.get(value, i))
        for value in step.inputs:
            if value in lives and value not in needed:
                lives[value] = (lives[value][0], i)
    for value in (*elsewhere, *route.by_data):
        lives.pop(value, None)
    offsets: dict[int, int] = {}
    for value in sorted(lives, key=lambda v: (-nbytes[v], v)):
        first, last = lives[value]
        taken = sorted(
            (offsets[other], offsets[other] + aligned(nbytes[other]))
            for other in offsets
            if lives[other][0] <= last and first <= lives[other][1]
        )
        at = 0
        for low, high in taken:
            if at + aligned(nbytes[value]) <= low:
                break
            at = max(at, high)
        offsets[value] = at
    return offsets, max((offsets[v] + aligned(nbytes[v]) for v in offsets), default=0)
