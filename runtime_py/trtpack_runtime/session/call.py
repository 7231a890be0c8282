# SPDX-License-Identifier: Apache-2.0
"""One call: inputs to the GPU, the segments or their graph, state, outputs back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..dtypes import DTYPES
from ..errors import TrtpackError
from .arrays import DeviceArray, Shape, numpy_dtype
from .given import Given
from .memory import Block, aligned, array_at
from .plan import Plan
from .route import Route
from .staging import SessionFuture, Slot
from .work import Again, Work

if TYPE_CHECKING:
    import numpy

_GRAPHS = 8
"""Graphs kept of a plan."""
_CAPTURES = 32
"""After so many captures of a plan, its inputs are copied rather than captured where they are."""


@dataclass(frozen=True)
class Output:
    """Where an output lies, its type there and the bundle's."""

    name: str
    dtype: str
    held: str
    shape: Shape
    address: int
    block: Block

    @property
    def nbytes(self) -> int:
        """Bytes it takes on the GPU."""
        return DTYPES[self.held].nbytes(math.prod(self.shape))


def begin(work: Work, route: Route, given: Sequence[Given]) -> SessionFuture:
    """Gives the stream a call whose outputs are copied to the host.

    Raises:
        InputMismatchError: a shape that the method does not take.
        DeviceError: the GPU or TensorRT refuses.
    """
    slot = work.staging.take()
    try:
        outputs = _launched(work, route, given, slot)
        places, at = [], 0
        for output in outputs:
            places.append(at)
            at += aligned(output.nbytes)
        slot.results.reserve(at)
        for output, offset in zip(outputs, places, strict=True):
            if output.nbytes:
                to = slot.results.address + offset
                work.cuda.copy_out(to, output.address, output.nbytes, work.stream)
        work.cuda.record(slot.event, work.stream)
    except BaseException:
        _abandon(work)
        raise

    def finish() -> dict[str, Any]:
        return {
            output.name: _copied(slot.results.address + offset, output)
            for output, offset in zip(outputs, places, strict=True)
        }

    return SessionFuture(work.cuda, slot, finish, given)


def begin_on_gpu(
    work: Work, route: Route, given: Sequence[Given]
) -> tuple[dict[str, DeviceArray], SessionFuture]:
    """As ``begin``, with outputs that stay on the GPU; they may not be ready yet."""
    slot = work.staging.take()
    try:
        arrays = _arrays(work, _launched(work, route, given, slot))
        work.cuda.record(slot.event, work.stream)
    except BaseException:
        _abandon(work)
        raise
    return arrays, SessionFuture(work.cuda, slot, lambda: arrays, given)


def run_on_gpu(work: Work, route: Route, given: Sequence[Given]) -> dict[str, DeviceArray]:
    """A call between inputs and outputs on the GPU, which the host does not wait for."""
    try:
        arrays = _arrays(work, _launched(work, route, given, None))
    except BaseException:
        _abandon(work)
        raise
    plan = work.plan_for(route, given)
    if plan.repeatable:
        places = plan.addresses.copy()
        for value, one in zip(route.inputs, given, strict=True):
            places[value] = one.address
        graph = plan.graphs.get(tuple(places))
        if graph is not None or work.graphs == "off" or plan.refused:
            steps = zip(plan.contexts, route.steps, strict=True)
            bound = tuple((c, [places[value] for value in step.bound]) for c, step in steps)
            work.again = Again(route, graph, bound, arrays)
    return arrays


def repeated(work: Work, again: Again) -> dict[str, DeviceArray]:
    """Makes a call again; raises as ``run_on_gpu``."""
    if again.graph is not None:
        work.cuda.launch(again.graph, work.stream)
    else:
        for context, addresses in again.bound:
            context.enqueue(addresses, work.handle)
    return dict(again.arrays)


def fetched(work: Work, array: DeviceArray) -> numpy.ndarray[Any, Any]:
    """A copy of an output on the GPU."""
    import numpy

    found = numpy.empty(array.shape, numpy_dtype(array.dtype))
    if array.nbytes:
        with work.lock:
            work.cuda.use()
            work.cuda.copy_out(found.ctypes.data, array.address, array.nbytes, work.stream)
            work.cuda.wait(work.stream)
    return found


def _launched(
    work: Work, route: Route, given: Sequence[Given], slot: Slot | None
) -> Sequence[Output]:
    plan, cuda, stream = work.plan_for(route, given), work.cuda, work.stream
    addresses, low, high = plan.addresses.copy(), plan.arena.address, plan.arena.end
    for value, one in zip(route.inputs, given, strict=True):
        addresses[value] = one.address or low  # one without elements has no address
        if low <= one.address < high:
            given = _out_of_the_way(work, plan, given)
            return _launched(work, route, given, slot)
    if slot is not None:
        _stage(work, plan, given, slot, addresses)
    for state, direct in zip(route.states, plan.direct, strict=True):
        held = work.states[state.name]
        addresses[state.input] = held.block.address
        if direct:
            addresses[state.output] = held.next_block(plan.nbytes[state.output]).address
    addresses = _run(work, plan, given, addresses)
    results = _results(plan, addresses)
    for value, place in plan.passed:
        cuda.copy_within(place, addresses[value], plan.nbytes[value], stream)
    for state, direct in zip(route.states, plan.direct, strict=True):
        if not direct and not state.is_read_only:
            shape, address, _ = results[state.output]
            nbytes = DTYPES[route.types[state.output]].nbytes(math.prod(shape))
            place = work.states[state.name].next_block(max(1, nbytes)).address
            if nbytes:
                cuda.copy_within(place, address, nbytes, stream)
    for state in route.states:
        if not state.is_read_only:
            work.states[state.name].swap(results[state.output][0])
    return _outputs(work, plan, results)


def _out_of_the_way(work: Work, plan: Plan, given: Sequence[Given]) -> list[Given]:
    """The inputs, outputs of the last call copied from where this call's are to be."""
    moved = list(given)
    for i, (one, place) in enumerate(zip(given, plan.input_places(work.cuda), strict=True)):
        if plan.arena.address <= one.address < plan.arena.end:
            nbytes = plan.nbytes[plan.route.inputs[i]]
            work.cuda.copy_within(place, one.address, nbytes, work.stream)
            moved[i] = Given(one.shape, None, place, one.owner)
    return moved


def _stage(
    work: Work, plan: Plan, given: Sequence[Given], slot: Slot, addresses: list[int]
) -> None:
    """Copies inputs from the host to the GPU by way of pinned memory."""
    import numpy

    route, at = plan.route, 0
    hosts = [i for i, one in enumerate(given) if one.array is not None]
    if not hosts:
        return
    slot.given.reserve(sum(aligned(plan.nbytes[route.inputs[i]]) for i in hosts))
    places = plan.input_places(work.cuda)
    for i in hosts:
        value, array = route.inputs[i], given[i].array
        nbytes = plan.nbytes[value]
        addresses[value] = places[i]
        if nbytes and array is not None:
            pinned = slot.given.array(at, numpy_dtype(route.types[value]), array.shape)
            numpy.copyto(pinned, array, casting="unsafe")  # what cannot be was refused before
            work.cuda.copy_in(places[i], slot.given.address + at, nbytes, work.stream)
            at += aligned(nbytes)


def _run(work: Work, plan: Plan, given: Sequence[Given], addresses: list[int]) -> list[int]:
    """Runs the segments, by a graph where one fits; answers where the values were."""
    plan.calls += 1
    wanted = work.graphs != "off" and not plan.refused
    if wanted and not plan.route.capturable:
        wanted, plan.refused = False, True
        _warn(work, "sizes within it depend on data, which a graph cannot wait for")
    here = tuple([one.address for one in given]) if wanted else ()
    plan.stable = plan.stable + 1 if here == plan.last else 0
    plan.last = here
    if not wanted or plan.calls == 1:
        _enqueue(work, plan, plan.contexts, addresses)
        return addresses
    graph = plan.graphs.get(tuple(addresses))
    if graph is None and any(here) and (not plan.stable or plan.captures >= _CAPTURES):
        addresses = _copied_in(work, plan, given, addresses)
        graph = plan.graphs.get(tuple(addresses))
    if graph is not None:
        work.cuda.launch(graph, work.stream)
    else:
        _enqueue(work, plan, work.graph_contexts(plan), addresses)
        if plan.captures < 2 * _CAPTURES:
            _capture(work, plan, addresses)
    return addresses


def _copied_in(work: Work, plan: Plan, given: Sequence[Given], addresses: list[int]) -> list[int]:
    """Moves inputs on the GPU to where the plan has room for them."""
    places = plan.input_places(work.cuda)
    for i, (value, one) in enumerate(zip(plan.route.inputs, given, strict=True)):
        if one.array is None:
            if plan.nbytes[value] and one.address != places[i]:
                work.cuda.copy_within(places[i], one.address, plan.nbytes[value], work.stream)
            addresses[value] = places[i]
    return addresses


def _enqueue(work: Work, plan: Plan, contexts: Sequence[Any], addresses: list[int]) -> None:
    for step, context, shapes in zip(plan.route.steps, contexts, plan.step_shapes, strict=True):
        context.told(shapes)
        context.enqueue([addresses[value] for value in step.bound], work.handle)


def _capture(work: Work, plan: Plan, addresses: list[int]) -> None:
    """Keeps what was enqueued last as a graph for calls of the same addresses."""
    contexts = work.graph_contexts(plan)
    try:
        graph = work.cuda.capture(lambda: _enqueue(work, plan, contexts, addresses), work.stream)
    except TrtpackError as error:
        plan.refused = True
        _warn(work, error.message)
        return
    plan.captures += 1
    if len(plan.graphs) >= _GRAPHS:
        work.cuda.wait(work.stream)
        work.cuda.end_graph(plan.graphs.pop(next(iter(plan.graphs))))
    plan.graphs[tuple(addresses)] = graph


def _warn(work: Work, reason: str) -> None:
    if work.graphs == "on":
        warnings.warn(f"the session runs without a CUDA graph: {reason}", UserWarning, stacklevel=7)


def _results(plan: Plan, addresses: list[int]) -> dict[int, tuple[Shape, int, Block]]:
    """Shape, address and memory of the values that are wanted after the last segment."""
    route = plan.route
    found: dict[int, tuple[Shape, int, Block]] = {}
    for step, context in zip(route.steps, plan.contexts, strict=True):
        for name in step.engine.by_data:
            value = step.outputs[step.engine.outputs.index(name)]
            shape, block = context.allocator.taken(name)
            found[value] = shape, block.address, block
    for value in (*(v for _, v in route.outputs), *(s.output for s in route.states)):
        shape_of = plan.shapes[value]
        if shape_of is not None:
            found[value] = shape_of, addresses[value], plan.arena
    return found


def _outputs(
    work: Work, plan: Plan, results: Mapping[int, tuple[Shape, int, Block]]
) -> Sequence[Output]:
    route, passed = plan.route, dict(plan.passed)
    blocks = {
        state.output: work.states[state.name].block
        for state, direct in zip(route.states, plan.direct, strict=True)
        if direct
    }
    found = []
    for spec, value in route.outputs:
        shape, address, block = results[value]
        found.append(
            Output(
                spec.name,
                spec.dtype,
                route.types[value],
                shape,
                passed.get(value, address),
                blocks.get(value, block),
            )
        )
    return found


def _arrays(work: Work, outputs: Sequence[Output]) -> dict[str, DeviceArray]:
    return {
        o.name: DeviceArray(
            o.shape,
            o.held,
            o.address,
            work.cuda.index,
            o.block,
            work.order,
            lambda array: fetched(work, array),
        )
        for o in outputs
    }


def _copied(address: int, output: Output) -> numpy.ndarray[Any, Any]:
    """An output as an array of its own, in the bundle's type."""
    there = array_at(address, numpy_dtype(output.held), output.shape)
    return there.astype(numpy_dtype(output.dtype))


def _abandon(work: Work) -> None:
    """Waits for what a call that failed gave the stream, whose memory goes to the next."""
    try:
        work.cuda.wait(work.stream)
    except TrtpackError:
        return
