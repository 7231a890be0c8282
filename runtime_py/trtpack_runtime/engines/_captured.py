# SPDX-License-Identifier: Apache-2.0
"""A CUDA graph captured from an engine, and where it reads and writes.

A graph has addresses in it. Where a caller gives the same memory call after call, the graph reads
or writes that itself; what moves is copied, to a place of the graph's own before a replay and from
there after it.

Source: TensorRT's documentation, "CUDA Graphs" (the engine runs once before a capture; a graph is
of one set of shapes, and its context is not to be changed).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ._borders import Borders
from ._contexts import Context
from ._plans import Plan
from ._streams import Streams

T = torch.Tensor

_CAPTURES = threading.Lock()
"""One capture at a time: each begins by waiting for the whole device."""


@dataclass(frozen=True, eq=False)
class Graph:
    """What ``replay`` does: it reads inputs and writes outputs of these shapes and types.

    ``into`` says whether the outputs are the caller's. ``at`` are the addresses of the inputs and
    then of these outputs; None where it has a place of its own. ``places`` are those of the inputs
    numbered ``moved``; ``results`` are where it writes, ``returned`` the numbers of those that are
    its own, and copied to the caller. ``kept`` is what has to live as long.
    """

    replay: Callable[[], None]
    context: Context
    plan: Plan
    into: bool
    shapes: tuple[Any, ...]
    at: tuple[int | None, ...]
    moved: tuple[int, ...]
    places: list[T]
    results: list[T]
    returned: tuple[int, ...]
    kept: Any

    def reads(self, inputs: Sequence[T], borders: Borders) -> bool:
        """Whether inputs are what it reads, or can be copied to there."""
        shapes, index = self.shapes, borders.index
        if len(inputs) != len(shapes):
            return False
        for tensor, dtype, shape, at in zip(inputs, borders.wanted, shapes, self.at):  # noqa: B905
            if (
                tensor.shape != shape
                or tensor.dtype is not dtype
                or tensor.get_device() != index
                or not (at is None or (tensor.data_ptr() == at and tensor.is_contiguous()))
            ):
                return False
        return True

    def writes(self, outputs: Sequence[T], borders: Borders) -> bool:
        """Whether the caller's outputs are where it writes, or can be copied to from there.

        Raises:
            InputMismatchError: they are not what the engine writes at all.
        """
        borders.check_outputs(self.plan, outputs)
        where = self.at[len(self.shapes) :]
        return all(
            at is None or tensor.data_ptr() == at for tensor, at in zip(outputs, where, strict=True)
        )

    def memory(self) -> list[T]:
        """The tensors of its own, which the allocator has to know where they are used."""
        return [*self.places, *self.own_results]

    @property
    def own_results(self) -> list[T]:
        """Where it writes what is copied to the caller."""
        return [self.results[i] for i in self.returned]


def copy(places: list[T], tensors: list[T]) -> None:
    """Copies tensors, several by one launch where PyTorch can."""
    if len(places) == 1:
        places[0].copy_(tensors[0])
    elif places:
        torch._foreach_copy_(places, tensors)


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
    plan, count = context.plan, len(given)
    numbers = tuple(i for i in range(count) if i in moved or i in borders.narrowed)
    here = [
        tensor.to(dtype, copy=True) if i in numbers else tensor
        for i, (tensor, dtype) in enumerate(zip(given, borders.held, strict=True))
    ]
    returned = tuple(
        i
        for i in range(len(plan.outputs))
        if outputs is None or count + i in moved or i in borders.widened
    )
    results = [
        streams.empty(*output) if outputs is None or i in returned else outputs[i]
        for i, output in enumerate(plan.outputs)
    ]
    context.takes(here, borders.held, borders.index)
    context.writes(results)
    graph = _recorded(context, streams)
    at = [None if i in numbers else tensor.data_ptr() for i, tensor in enumerate(given)]
    for i, output in enumerate(outputs or ()):
        at.append(None if i in returned else output.data_ptr())
    return Graph(
        graph.replay,
        context,
        plan,
        outputs is not None,
        tuple(tuple(tensor.shape) for tensor in given),
        tuple(at),
        numbers,
        [here[i] for i in numbers],
        results,
        returned,
        graph,
    )


def _recorded(context: Context, streams: Streams) -> Any:
    """What a context enqueues, which has been told everything; it runs once before."""
    graph, stream, current = streams.graph(), streams.new(), streams.now()
    stream.wait_stream(current)
    with _CAPTURES:
        if not context.enqueue(stream.cuda_stream):
            raise RuntimeError("TensorRT cannot run the engine on a stream of its own")
        stream.synchronize()
        with streams.capture(graph, stream):
            done = context.enqueue(stream.cuda_stream)
    if not done:
        raise RuntimeError("TensorRT cannot enqueue the engine while a graph is captured")
    current.wait_stream(stream)
    return graph
