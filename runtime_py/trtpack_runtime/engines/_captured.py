# SPDX-License-Identifier: Apache-2.0
"""A CUDA graph captured from an engine, and where it reads and writes.

A graph has addresses in it. Where a caller gives the same memory call after call, the graph reads
or writes that itself; what moves is copied, to a place of the graph's own before a replay and from
there after it.

Source: TensorRT's documentation, "CUDA Graphs" (the engine runs once before a capture; a graph is
of one set of shapes, and its context is not to be changed).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ._alike import Alike
from ._borders import Borders
from ._contexts import Context
from ._plans import Plan
from ._range_check import Narrowing
from ._streams import CAPTURES, Memcpy, Streams

T = torch.Tensor

Move = Callable[[Sequence[T], int], None]
"""Copies what is elsewhere among a call's contiguous inputs, or outputs, on a stream."""


@dataclass(frozen=True, eq=False)
class Graph:
    """What ``replay`` does, for inputs of these ``shapes``.

    ``into`` says whether the outputs are the caller's. ``at`` are the addresses of the inputs and
    then of these outputs; None where it has a place of its own. ``places`` are those of the inputs
    numbered ``moved``; ``results`` are its own places of the outputs numbered ``returned``, which
    are copied to the caller. ``narrowing`` goes before a replay where the engine takes fewer bits
    than the caller gives. ``alike`` knows tensors it was called with, ``bring`` copies inputs to
    its places and ``give`` results to the caller's outputs where there are such, ``kept`` is what
    has to live as long.
    """

    replay: Callable[[], None]
    context: Context
    plan: Plan
    into: bool
    shapes: tuple[Any, ...]
    at: tuple[int | None, ...]
    moved: tuple[int, ...]
    places: list[T]
    returned: tuple[int, ...]
    results: list[T]
    narrowing: Narrowing | None
    alike: Alike
    bring: Move | None
    give: Move | None
    kept: Any

    def takes(self, inputs: Sequence[T], outputs: Sequence[T] | None, borders: Borders) -> bool:
        """Whether a call's tensors are where it reads and writes, or can be copied.

        Raises:
            InputMismatchError: the outputs are not what the engine writes at all.
        """
        if self.into != (outputs is not None):
            return False
        tensors = inputs if outputs is None else [*inputs, *outputs]
        if len(tensors) != len(self.at):
            return False
        if not self.alike.check(*tensors):
            if not self._are_so(inputs, borders):
                return False
            if outputs is not None:
                borders.check_outputs(self.plan, outputs)
            self.alike.learn(tensors)
        for tensor, at in zip(tensors, self.at):  # noqa: B905 - counted above
            if at is not None and tensor.data_ptr() != at:
                return False
        return True

    def _are_so(self, inputs: Sequence[T], borders: Borders) -> bool:
        """Whether inputs are of its shapes and types, and contiguous where it reads them."""
        expected = zip(inputs, borders.wanted, self.shapes, self.at)  # noqa: B905 - at is longer
        return all(
            tensor.shape == shape
            and tensor.dtype is dtype
            and tensor.get_device() == borders.index
            and (at is None or tensor.is_contiguous())
            for tensor, dtype, shape, at in expected
        )

    def memory(self) -> list[T]:
        """The tensors of its own, which the allocator has to know where they are used."""
        narrowing = [] if self.narrowing is None else self.narrowing.memory()
        return [*self.places, *self.results, *narrowing]


def copy(places: list[T], tensors: list[T]) -> None:
    """Copies tensors, several by one launch where PyTorch can."""
    if torch.is_grad_enabled():
        tensors = [tensor.detach() for tensor in tensors]
    if len(places) == 1:
        places[0].copy_(tensors[0])
    elif places:
        torch._foreach_copy_(places, tensors)


def _moves(
    places: list[T], numbers: Sequence[int], memcpy: Memcpy | None, *, inward: bool
) -> Move | None:
    """Copies the tensors of these numbers to the places, or from them: one by the driver, which is
    the quicker then, several by PyTorch. None where there are none."""
    if not places:
        return None

    def several(tensors: Sequence[T], stream: int) -> None:
        others = [tensors[i] for i in numbers]
        copy(*((places, others) if inward else (others, places)))

    if memcpy is None or len(places) > 1 or not places[0].nbytes:
        return several
    number, here = numbers[0], ctypes.c_void_p(places[0].data_ptr())
    nbytes = ctypes.c_size_t(places[0].nbytes)

    def bring(tensors: Sequence[T], stream: int) -> None:
        if memcpy(here, tensors[number].data_ptr(), nbytes, stream):
            several(tensors, stream)

    def give(tensors: Sequence[T], stream: int) -> None:
        if memcpy(tensors[number].data_ptr(), here, nbytes, stream):
            several(tensors, stream)

    return bring if inward else give


def captured(
    context: Context,
    borders: Borders,
    streams: Streams,
    given: Sequence[T],
    outputs: Sequence[T] | None,
    moved: Collection[int],
) -> Graph:
    """Captures a context that knows the shapes of ``given``.

    Args:
        context: one that runs nothing else as long as the graph lives.
        borders: the engine's.
        streams: the device's.
        given: contiguous inputs of the wanted types.
        outputs: the caller's, None where they want new ones.
        moved: numbers of inputs, and after them of outputs, that will be elsewhere at other calls.

    Raises:
        RuntimeError: CUDA or TensorRT cannot.
    """
    with torch.inference_mode(False), torch.no_grad():  # what is written to at any later call
        return _captured(context, borders, streams, given, outputs, moved)


def _captured(
    context: Context,
    borders: Borders,
    streams: Streams,
    given: Sequence[T],
    outputs: Sequence[T] | None,
    moved: Collection[int],
) -> Graph:
    plan, count = context.plan, len(given)
    numbers = tuple(i for i in range(count) if i in moved or i in borders.narrowed)
    wide = {i: given[i] for i in borders.narrowed}
    narrowing = Narrowing(streams, wide) if wide else None
    places = {i: given[i].clone() for i in numbers if i not in wide}
    here = [places.get(i, tensor) for i, tensor in enumerate(given)]
    if narrowing is not None:
        places |= narrowing.places
        for i, held in narrowing.held.items():
            here[i] = held
    returned = tuple(
        i
        for i in range(len(plan.outputs))
        if outputs is None or count + i in moved or i in borders.widened
    )
    results = [
        streams.empty(*output) if outputs is None or i in returned else outputs[i]
        for i, output in enumerate(plan.outputs)
    ]
    context.bind([*here, *results])
    graph = _recorded(context, streams)
    at = [None if i in numbers else tensor.data_ptr() for i, tensor in enumerate(given)]
    for i, output in enumerate(outputs or ()):
        at.append(None if i in returned else output.data_ptr())
    memcpy = streams.memcpy() if numbers or returned else None
    moving, own = [places[i] for i in numbers], [results[i] for i in returned]
    return Graph(
        graph.replay,
        context,
        plan,
        outputs is not None,
        tuple(tuple(tensor.shape) for tensor in given),
        tuple(at),
        numbers,
        moving,
        returned,
        own,
        narrowing,
        Alike(),
        _moves(moving, numbers, memcpy, inward=True),
        _moves(own, returned, memcpy, inward=False),
        graph,
    )


def _recorded(context: Context, streams: Streams) -> Any:
    """What a context enqueues, which has been told everything; it runs once before."""
    graph, current = streams.graph(), streams.now()
    with CAPTURES:
        stream = streams.for_captures()
        stream.wait_stream(current)
        if not context.enqueue(stream.cuda_stream):
            raise RuntimeError("TensorRT cannot run the engine on a stream of its own")
        stream.synchronize()
        with streams.capture(graph, stream):
            done = context.enqueue(stream.cuda_stream)
        if not done:
            raise RuntimeError("TensorRT cannot enqueue the engine while a graph is captured")
        current.wait_stream(stream)
    return graph
