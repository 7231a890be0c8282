# SPDX-License-Identifier: Apache-2.0
"""The shortest way through a call that is like an earlier one: one engine, one CUDA graph, tensors
where the graph has them or copies them from. Types and shapes are looked at once, by the check that
also stands for the engine's and the method's own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from .call_plan import CallPlan
from .engines._alike import Alike

T = torch.Tensor
_address = torch.Tensor.data_ptr


class _Replaying(Protocol):
    """What the runner of an engine with graphs offers."""

    def lasting(self, inputs: Sequence[T], outputs: Sequence[T] | None) -> Any: ...

    def again(
        self, graph: Any, inputs: Sequence[T], outputs: Sequence[T] | None
    ) -> list[T] | None: ...


class _Known(NamedTuple):
    """A call: what says whether tensors are like its own, how many there are, the numbers of those
    whose addresses matter (None: all), these addresses, if there are any, and its graph."""

    check: Callable[..., bool]
    total: int
    fixed: list[int] | None
    addresses: tuple[int, ...]
    graph: weakref.ref[Any]


class Repeat:
    """Knows the tensors of the last call that a graph was replayed for, and does it again."""

    def __init__(self, runner: _Replaying) -> None:
        self._runner = runner
        self._fresh, self._given = Alike(), Alike()  # without ``out`` and with it
        self._known: _Known | None = None

    def __call__(self, inputs: Sequence[Any], out: Sequence[T] | None) -> list[T] | None:
        """The outputs, in ``out`` where that is given; None where this is another call, of which
        nothing is known yet."""
        known = self._known
        if known is None:
            return None
        check, total, fixed, addresses, known_graph = known
        tensors = inputs if out is None else [*inputs, *out]
        if len(tensors) != total or not check(*tensors):
            return None
        if addresses:
            stay = tensors if fixed is None else [tensors[i] for i in fixed]
            if tuple(map(_address, stay)) != addresses:
                return None
        graph = known_graph()
        return None if graph is None else self._runner.again(graph, inputs, out)

    def note(self, inputs: Sequence[T], out: Sequence[T] | None) -> None:
        """Takes in a call that went well another way."""
        self._known = None
        graph = self._runner.lasting(inputs, out)
        if graph is None:
            return
        tensors = [*inputs, *(out or ())]
        alike = self._fresh if out is None else self._given
        alike.learn(tensors)
        if alike.check(*tensors):
            fixed = [number for number, at in enumerate(graph.at) if at is not None]
            addresses = tuple(at for at in graph.at if at is not None)
            numbers = None if len(fixed) == len(tensors) else fixed
            known = (alike.check, len(tensors), numbers, addresses, weakref.ref(graph))
            self._known = _Known(*known)


def repeat_of(plan: CallPlan) -> Repeat | None:
    """For a program that is one engine, which takes its inputs and answers its outputs as they are,
    by graphs; None for any other."""
    if len(plan.steps) != 1 or plan.kept:
        return None
    step = plan.steps[0]
    takes_all = step.reads == tuple(range(step.first)) == tuple(range(plan.input_count))
    answers_all = plan.results == tuple(range(step.first, step.first + step.count))
    runner: Any = step.segment.run
    if takes_all and answers_all and hasattr(runner, "again"):
        return Repeat(runner)
    return None
