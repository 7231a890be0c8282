# SPDX-License-Identifier: Apache-2.0
"""Replays a whole program, engines and what runs between them, as one CUDA graph.

A graph is of one set of shapes and of fixed addresses. It is captured at the second call with equal
shapes. Inputs and outputs that were in the same memory at both calls are read and written there;
for others the graph has memory of its own, which costs a copy each. What was taken for fixed and
moves is captured anew. State is updated within the graph, in its own memory.

Source: CUDA C++ Programming Guide, "CUDA Graphs"; PyTorch, ``torch.cuda.CUDAGraph`` (the program
runs once before a capture, on the stream of the capture).
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from .call_plan import CallPlan
from .engines._captured import copy
from .engines._graph import ATTEMPTS
from .engines._streams import CAPTURES, Streams
from .errors import DeviceError
from .execution import Segments
from .given_outputs import run_into
from .program import Program
from .state_slots import unaliased

Tensors = Sequence[torch.Tensor]


@dataclass(eq=False)
class _Graph:
    """A captured graph and the memory it works in; while it lives, so do the engines' contexts that
    it was captured from."""

    graph: Any
    inputs: list[torch.Tensor] = field(default_factory=list)
    fixed: tuple[bool, ...] = ()
    """Which inputs are the caller's own memory."""
    states: list[int] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)
    writes_out: bool = False
    """Whether the outputs are the caller's own memory."""
    refits: tuple[int, ...] = ()
    streams: set[int] = field(default_factory=set)


class _Seen:
    """What is known of calls with one set of shapes: the last one's memory, and what moved."""

    def __init__(self, count: int) -> None:
        self.moves, self.out_moves = [False] * count, False
        self.last: list[Any] = []
        self.last_out: list[Any] | None = None
        self.graph: _Graph | None = None

    def note(self, inputs: Tensors, out: Tensors | None) -> None:
        """Remembers where a call's tensors were, without keeping them."""
        self.last = [(weakref.ref(x), x.data_ptr()) for x in inputs]
        self.last_out = None if out is None else [(weakref.ref(x), x.data_ptr()) for x in out]

    def stays(self, inputs: Tensors) -> tuple[bool, ...]:
        """Which inputs are where they were: a tensor that its owner kept, not new memory that
        happens to have the old address."""
        return tuple(
            not moves and _is_same(last, x) and x.is_contiguous()
            for moves, last, x in zip(self.moves, self.last, inputs, strict=True)
        )

    def out_stays(self, out: Tensors | None) -> bool:
        """Whether the caller's outputs are where they were."""
        if out is None or self.last_out is None or self.out_moves:
            return False
        return all(
            _is_same(last, x) and x.is_contiguous()
            for last, x in zip(self.last_out, out, strict=True)
        )


class WholeGraphs:
    """The graphs of one method, the latest ``size`` sets of shapes.

    A graph works in memory of its own, so one call replays at a time; a call that finds another
    thread at it runs without a graph.
    """

    def __init__(self, plan: CallPlan, device: torch.device, *, loud: bool, size: int) -> None:
        self._plan, self._loud, self._size = plan, loud, max(1, size)
        self._streams = Streams(device)
        self._index, self._current = self._streams.index, self._streams.current
        runners = [step.segment.run for step in plan.steps]
        self._engines: list[Any] = [run for run in runners if hasattr(run, "lane")]
        self._lanes: list[Any] = []
        self._seen: OrderedDict[Any, _Seen] = OrderedDict()
        self._lock = threading.Lock()
        self._last: int | None = None
        self._pool: Any = None
        self.refused: str | None = None
        """Why there are no graphs, once CUDA said so several times: another thread that waits for
        the whole device ends a capture."""
        self._attempts = ATTEMPTS

    def run(
        self, inputs: Tensors, states: Tensors, out: Tensors | None, *, lend: bool
    ) -> list[torch.Tensor] | None:
        """The outputs by a graph; None where this call is to run without one.

        Args:
            inputs: the method's, checked.
            states: the state's present values, which the graph updates.
            out: where the caller wants the outputs; also what is answered then.
            lend: answer the graph's own outputs, which the next call overwrites.
        """
        if self.refused is not None or self._streams.capturing():
            return None
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if self._streams.here() == self._index:
                return self._run(inputs, states, out, lend)
            with self._streams.on():
                return self._run(inputs, states, out, lend)
        finally:
            self._lock.release()

    def _run(
        self, inputs: Tensors, states: Tensors, out: Tensors | None, lend: bool
    ) -> list[torch.Tensor] | None:
        key = tuple([x.shape for x in inputs])
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = _Seen(len(inputs))
            seen.note(inputs, out)
            if len(self._seen) > self._size:
                self._drop(self._seen.popitem(last=False)[1])
            return None
        self._seen.move_to_end(key)
        if seen.graph is None or not self._fits(seen, seen.graph, inputs, states, out):
            self._drop(seen)
            try:
                with CAPTURES:
                    seen.graph = self._captured(seen, inputs, states, out)
            except (RuntimeError, DeviceError) as error:
                self._refuse(error)
                return None
        return self._replayed(seen.graph, inputs, out, lend)

    def _fits(
        self, seen: _Seen, graph: _Graph, inputs: Tensors, states: Tensors, out: Tensors | None
    ) -> bool:
        """Whether a graph can serve these tensors; notes what moved."""
        fits = True
        for number, (place, fixed, x) in enumerate(
            zip(graph.inputs, graph.fixed, inputs, strict=True)
        ):
            if fixed and x is not place and not _is_at(place, x):
                seen.moves[number], fits = True, False
        if graph.writes_out and not (out is not None and all(map(_is_at, graph.outputs, out))):
            seen.out_moves, fits = True, False
        elif out is not None and not graph.writes_out and seen.graph is not None:
            if seen.out_stays(out):
                fits = False
            elif not seen.out_moves:
                seen.last_out = [(weakref.ref(x), x.data_ptr()) for x in out]
        if graph.refits != self._refits():
            return False
        return fits and [x.data_ptr() for x in states] == graph.states

    def _refits(self) -> tuple[int, ...]:
        """How often each engine was given other weights."""
        return tuple([engine.refits for engine in self._engines])

    def _replayed(
        self, graph: _Graph, inputs: Tensors, out: Tensors | None, lend: bool
    ) -> list[torch.Tensor]:
        stream = self._current(self._index)
        if stream != self._last:
            if self._last is not None:
                self._streams.of(stream).wait_stream(self._streams.of(self._last))
            self._last = stream
        if stream not in graph.streams:
            graph.streams.add(stream)
            for tensor in (*graph.inputs, *graph.outputs):
                tensor.record_stream(self._streams.of(stream))  # where else it is used
        moved = [
            (place, x)
            for place, x in zip(graph.inputs, inputs, strict=True)
            if x is not place and not _is_at(place, x)
        ]
        if moved:
            copy(*map(list, zip(*moved, strict=True)))
        graph.graph.replay()
        if graph.writes_out and out is not None:
            return list(out)
        if lend and out is None:
            return list(graph.outputs)
        answer = list(out) if out is not None else [torch.empty_like(o) for o in graph.outputs]
        copy(answer, graph.outputs)
        return answer

    def _captured(
        self, seen: _Seen, inputs: Tensors, states: Tensors, out: Tensors | None
    ) -> _Graph:
        """Captures the program with these tensors.

        Raises:
            RuntimeError: CUDA or TensorRT cannot.
            DeviceError: there is no memory for contexts of the graph's own.
        """
        found = _Graph(self._streams.graph(), refits=self._refits())
        found.fixed, found.writes_out = seen.stays(inputs), seen.out_stays(out)
        stream, caller = self._streams.for_captures(), self._streams.now()
        stream.wait_stream(caller)
        if self._last is not None:
            stream.wait_stream(self._streams.of(self._last))
        with self._on_lanes(found):
            with torch.cuda.stream(stream), _lasting():
                found.inputs = [
                    x if stays else x.clone(memory_format=torch.contiguous_format)
                    for stays, x in zip(found.fixed, inputs, strict=True)
                ]
                self._plan.run(self._plan.values(found.inputs, states))  # state stays as it is
            stream.synchronize()
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            given = out if found.writes_out else None
            with (
                torch.cuda.graph(
                    found.graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
                ),
                _lasting() if given is None else nullcontext(),  # the caller's are of their mode
            ):
                found.outputs = self._body(found.inputs, states, given)
        caller.wait_stream(stream)
        found.states = [x.data_ptr() for x in states]
        return found

    @contextmanager
    def _on_lanes(self, keeper: _Graph) -> Iterator[None]:
        """Engines run on contexts that nothing else runs on while ``keeper`` lives."""
        if not self._lanes:
            self._lanes = [engine.lane() for engine in self._engines]
        with ExitStack() as stack:
            for engine, lane in zip(self._engines, self._lanes, strict=True):
                stack.enter_context(engine.on(lane, keeper))
            yield

    def _body(self, places: Tensors, states: Tensors, out: Tensors | None) -> list[torch.Tensor]:
        """The program as it is captured: computes, then updates the state."""
        plan, values = self._plan, self._plan.values(places, states)
        values = plan.run(values) if out is None else run_into(plan, values, out)
        unaliased(values, plan.risky, states)
        for state, slot in zip(states, plan.kept, strict=True):
            if state.shape != values[slot].shape:
                raise RuntimeError("a state changes its size")
            state.copy_(values[slot])
        outputs = plan.outputs(values)
        if out is None:
            return outputs
        for place, output in zip(out, outputs, strict=True):
            if place is not output:
                place.copy_(output)
        return list(out)

    def _drop(self, seen: _Seen) -> None:
        """Lets a graph go, once it does not run any more."""
        if seen.graph is not None and self._last is not None:
            self._streams.of(self._last).synchronize()
        seen.graph = None

    def _refuse(self, error: Exception) -> None:
        self._attempts -= 1
        if self._attempts:
            return
        self.refused = str(error).splitlines()[0] if str(error) else type(error).__name__
        self._seen.clear()
        self._lanes.clear()
        if self._loud:
            _warn(self.refused)


@contextmanager
def _lasting() -> Iterator[None]:
    """Makes tensors that may be written to later, which those of inference mode may not be outside
    of it."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def whole_graphs(
    program: Program,
    segments: Segments,
    stored: Mapping[str, torch.Tensor],
    device: torch.device,
    *,
    loud: bool,
    size: int,
) -> WholeGraphs | None:
    """Graphs for a program all of whose segments can be captured; None for others, and for an
    engine alone, which has graphs of its own.

    ``loud`` warns where there can be none.
    """
    loaded = segments.methods[program.method]
    if len(loaded) == 1 and hasattr(loaded[0].run, "lane") and not program.state:
        return None
    stuck = [s.name for s in loaded if not getattr(s.run, "capturable", False)]
    if stuck:
        if loud:
            _warn(f"segment {stuck[0]} cannot be captured")
        return None
    return WholeGraphs(CallPlan(program, loaded, stored), device, loud=loud, size=size)


def _is_same(last: Any, x: torch.Tensor) -> bool:
    known, address = last
    return known() is x and x.data_ptr() == address


def _is_at(place: torch.Tensor, x: torch.Tensor) -> bool:
    return place.data_ptr() == x.data_ptr() and x.is_contiguous()


def _warn(reason: str) -> None:
    warnings.warn(
        f"the program runs without one CUDA graph for all of it: {reason}",
        UserWarning,
        stacklevel=3,
    )
