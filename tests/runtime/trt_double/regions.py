# SPDX-License-Identifier: Apache-2.0
"""Loops and conditionals of a double: their boundary layers, and what may stand between them.

The layer that takes a value out has the kind of the portable network; the others are named here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trtpack_runtime.dims import Dim
from trtpack_runtime.dtypes import DTYPES
from trtpack_tools.infer.rules import agree

from .rows import Row

Results = list[tuple[str, tuple[Dim, ...]]]


def _boundary(kind: str, layer: str, type: str, outputs: int = 1) -> Row:
    return Row(kind, layer, type, (), lambda _: ({}, {}), outputs=outputs)


_TRIP_LIMIT = _boundary("trip_limit", "ITripLimitLayer", "TRIP_LIMIT", 0)
_RECURRENCE = _boundary("recurrence", "IRecurrenceLayer", "RECURRENCE")
_ITERATOR = _boundary("iterator", "IIteratorLayer", "ITERATOR")
_LOOP_OUTPUT = _boundary("scan", "ILoopOutputLayer", "LOOP_OUTPUT")
_CONDITION = _boundary("condition", "IConditionLayer", "CONDITION", 0)
_ENTRY = _boundary("entry", "IIfConditionalInputLayer", "CONDITIONAL_INPUT")
_CHOICE = _boundary("branch", "IIfConditionalOutputLayer", "CONDITIONAL_OUTPUT")


class LoopOf:
    """``ILoop``."""

    _network: Any

    def _do_add_trip_limit(self, tensor: Any, kind: Any) -> Any:
        if kind.name == "COUNT" and (tensor.dtype.name not in ("INT32", "INT64") or tensor._dims()):
            self._network._complain("addTripLimit: the count must be a 0-D integer tensor")
            return None
        return self._network._layer(_TRIP_LIMIT, [tensor], {"kind": kind})

    def _do_add_recurrence(self, initial_value: Any) -> Any:
        return self._network._layer(_RECURRENCE, [initial_value])

    def _do_add_iterator(self, tensor: Any, axis: int = 0, reverse: bool = False) -> Any:
        return self._network._layer(_ITERATOR, [tensor], {"axis": axis, "reverse": reverse})

    def _do_add_loop_output(self, tensor: Any, kind: Any, axis: int = 0) -> Any:
        return self._network._layer(_LOOP_OUTPUT, [tensor], {"kind": kind, "axis": axis})


class IfConditionalOf:
    """``IIfConditional``."""

    _network: Any
    _first: int

    def _do_set_condition(self, condition: Any) -> Any:
        if condition.dtype.name != "BOOL" or condition._dims():
            self._network._complain("setCondition: the condition must be a 0-D boolean tensor")
            return None
        return self._network._layer(_CONDITION, [condition])

    def _do_add_input(self, input: Any) -> Any:
        return self._network._layer(_ENTRY, [input], {"conditional": self})

    def _do_add_output(self, true_subgraph_output: Any, false_subgraph_output: Any) -> Any:
        outputs = [true_subgraph_output, false_subgraph_output]
        for tensor in outputs:
            if name := self._reads_from_outside(tensor):
                self._network._complain(f"addOutput: {name} was not brought in by an input layer")
        return self._network._layer(_CHOICE, outputs)

    def _reads_from_outside(self, tensor: Any) -> str | None:
        layer = tensor._layer
        if layer is None or layer._number < self._first:
            return str(tensor.name)
        if layer._row is _ENTRY and layer._values["conditional"] is self:
            return None
        found = (self._reads_from_outside(t) for t in layer._inputs if t is not None)
        return next((name for name in found if name), None)


def add_loop(network: Any) -> Any:
    """What ``INetworkDefinition.add_loop`` makes."""
    return network._trt.ILoop._made(network=network)


def add_if_conditional(network: Any) -> Any:
    """What ``INetworkDefinition.add_if_conditional`` makes."""
    return network._trt.IIfConditional._made(network=network, first=len(network._layers))


def _passed(layer: Any) -> Results:
    return [(layer._inputs[0].dtype.name, layer._inputs[0]._dims())]


def _recurrence(layer: Any) -> Results:
    first, *after = layer._inputs
    if after and not _alike(first, after[0]):
        raise ValueError(f"a state {list(first._dims())} becomes {list(after[0]._dims())}")
    return _passed(layer)


def _iterator(layer: Any) -> Results:
    ((dtype, shape),) = _passed(layer)
    axis = layer._value("axis")
    return [(dtype, shape[:axis] + shape[axis + 1 :])]


def _loop_output(layer: Any) -> Results:
    ((dtype, shape),) = _passed(layer)
    if layer._value("kind").name == "LAST_VALUE":
        return [(dtype, shape)]
    if len(layer._inputs) < 2:
        raise ValueError("a stacked output needs the number of steps")
    (length,) = layer._inputs[1]._sizes()
    axis = layer._value("axis")
    return [(dtype, (*shape[:axis], length, *shape[axis:]))]


def _choice(layer: Any) -> Results:
    if not _alike(*layer._inputs):
        raise ValueError("the branches of a conditional answer different types or shapes")
    return _passed(layer)


def _alike(a: Any, b: Any) -> bool:
    fits = len(a._dims()) == len(b._dims()) and all(
        agree(one, other) is not None for one, other in zip(a._dims(), b._dims(), strict=True)
    )
    return fits and DTYPES[a.dtype.name] == DTYPES[b.dtype.name]


BOUNDARIES: Mapping[str, Callable[[Any], Results]] = {
    "trip_limit": lambda _: [],
    "recurrence": _recurrence,
    "iterator": _iterator,
    "scan": _loop_output,
    "condition": lambda _: [],
    "entry": _passed,
    "branch": _choice,
}
"""Type and shape of what a boundary layer answers."""
