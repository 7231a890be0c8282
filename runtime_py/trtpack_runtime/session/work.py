# SPDX-License-Identifier: Apache-2.0
"""What a session has on the GPU: stream, plans by shapes, contexts, state, memory.

All of it is here, apart from the session, so that it can be given back without it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors import TrtpackError
from ..input_shapes import check_rank, check_sizes
from .allocator import output_allocator
from .arrays import DeviceArray, Shape
from .cuda import Cuda
from .engine import Context, Scratch
from .given import Given
from .memory import Grown
from .plan import Plan, make_plan
from .route import Route, Step
from .staging import Staging
from .state import State
from .stored import Constant


@dataclass(frozen=True, eq=False)
class Again:
    """A call that has been made, to be made again with all tensors where they were: its graph, or
    each context with its addresses."""

    route: Route
    graph: Any
    bound: tuple[tuple[Context, list[int]], ...]
    arrays: Mapping[str, DeviceArray]


@dataclass(eq=False)
class Work:
    """A session's things on the GPU. ``graphs`` is "off", "auto" or "on"."""

    cuda: Cuda
    trt: Any
    stream: Any
    owns_stream: bool
    routes: Mapping[str, Route]
    states: Mapping[str, State]
    constants: dict[str, Constant]
    graphs: str
    most_plans: int
    in_flight: int
    plans: OrderedDict[Any, Plan] = field(default_factory=OrderedDict)
    contexts: dict[Any, Context] = field(default_factory=dict)
    closed: bool = False
    again: Again | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held by whoever gives the stream something."""

    def __post_init__(self) -> None:
        """Makes what is small; scratch and pinned memory are taken when they are needed."""
        self.staging = Staging(self.cuda, self.in_flight)
        self.scratch = Scratch(Grown(self.cuda))
        self.handle = int(self.stream)
        self._between: Any = None
        self._allocators: list[Any] = []
        for route in self.routes.values():
            for step in route.steps:
                self.scratch.need(step.engine.scratch_bytes)

    def plan_for(self, route: Route, given: Sequence[Given]) -> Plan:
        """The plan of these shapes, made where it is the first call of them.

        Raises:
            InputMismatchError: a shape that the method does not take.
            DeviceError: the GPU has too little memory.
        """
        states = tuple([self.states[slot.name].shape for slot in route.states])
        key = (route.method, tuple([one.shape for one in given]), states)
        plan = self.plans.get(key)
        if plan is not None:
            if len(self.plans) > 1:
                self.plans.move_to_end(key)
            return plan
        check_shapes(route, given)
        self.again = None
        while len(self.plans) >= self.most_plans:
            self._forget_oldest()
        known = {value: one.shape for value, one in zip(route.inputs, given, strict=True)}
        known |= {slot.input: shape for slot, shape in zip(route.states, states, strict=True)}
        places = {}
        for value, name in route.constants:
            known[value] = self.constants[name].shape
            places[value] = self.constants[name].block.address
        plan = self.plans[key] = make_plan(route, known, places, self._context, self.cuda)
        return plan

    def graph_contexts(self, plan: Plan) -> tuple[Context, ...]:
        """The contexts that a plan's graphs are captured from, told its shapes."""
        if plan.graph_contexts is None:
            made = []
            for step, context in zip(plan.route.steps, plan.contexts, strict=True):
                if step.engine.dynamic:
                    context = self._new_context(step, context.profile)
                made.append(context)
            plan.graph_contexts = tuple(made)
        return plan.graph_contexts

    def order(self, stream: int | None) -> None:
        """Has another stream wait for this one; None is the default one of old."""
        with self.lock:
            if stream != self.handle and not self.closed:
                self.cuda.use()
                self._between = self._between or self.cuda.new_event()
                self.cuda.record(self._between, self.stream)
                self.cuda.order(stream or 1, self._between)

    def close(self) -> None:
        """Gives everything back once the GPU is done with it; again does nothing."""
        if self.closed:
            return
        self.closed, self.again = True, None
        cuda = self.cuda
        ends = [cuda.use, self.staging.settle, lambda: cuda.wait(self.stream)]
        ends += [partial(plan.drop, cuda) for plan in self.plans.values()]
        ends += [allocator.drop for allocator in self._allocators]
        ends += [state.drop for state in self.states.values()]
        ends += [constant.block.drop for constant in self.constants.values()]
        ends += [self.plans.clear, self.contexts.clear, self.scratch.memory.drop]
        ends.append(self.staging.drop)
        if self._between is not None:
            ends.append(lambda: cuda.end_event(self._between))
        if self.owns_stream:
            ends.append(lambda: cuda.end_stream(self.stream))
        for end in ends:
            with suppress(TrtpackError):  # after a fault the GPU takes nothing back
                end()

    def _context(self, step: Step, shapes: tuple[Shape, ...]) -> Context:
        """The context of the profile that holds the shapes."""
        profile = step.engine.profiles.fitting(shapes)
        key = (id(step.engine), profile.index)
        if key not in self.contexts:
            self.contexts[key] = self._new_context(step, profile)
        return self.contexts[key]

    def _new_context(self, step: Step, profile: Any) -> Context:
        allocator = None
        if step.engine.by_data:
            allocator = output_allocator(self.trt, self.cuda)
            self._allocators.append(allocator)
        return step.engine.new_context(profile, self.scratch, self.cuda, self.stream, allocator)

    def _forget_oldest(self) -> None:
        self.staging.settle()
        self.cuda.wait(self.stream)
        _, plan = self.plans.popitem(last=False)
        plan.drop(self.cuda)


def check_shapes(route: Route, given: Sequence[Given]) -> None:
    """Holds the shapes of inputs against the manifest; InputMismatchError names what is wrong."""
    sizes = {spec.name: one.shape for spec, one in zip(route.specs, given, strict=True)}
    for spec, one in zip(route.specs, given, strict=True):
        check_rank(spec, one.shape)
        check_sizes(spec, one.shape, sizes)
