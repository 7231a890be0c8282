# SPDX-License-Identifier: Apache-2.0
"""A compiled graph as PyTorch calls it: on engines while these fit, made again where they do not.

Engines hold the parameters' values. So each call looks whether the parameters are the ones, and as
they were; a graph that several layers share has engines for each. What is changed in a way that
PyTorch does not count (``parameter.data.copy_``) goes unseen.
"""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trtpack.errors import ConfigError
from trtpack_runtime.errors import BuildCancelled, TrtpackError
from trtpack_runtime.segments import TENSORRT_KINDS
from trtpack_runtime.starting import DegradedWarning

from .graphs import Graph
from .making import Made, Place, Workshop, make
from .sizes import Limit, limits_of
from .taken import Taken

_LOG = logging.getLogger("trtpack.jit")

_PLAIN = (torch.Tensor, torch.nn.Parameter)
MOST_CHANGES = 8
"""How often weights may change before a graph stays in PyTorch."""

Weights = tuple[tuple[int, ...], tuple[int, ...]]
"""Where a graph's parameters are, and how often each was changed."""

_place = torch.Tensor.data_ptr
_count = operator.attrgetter("_version")


@dataclass(frozen=True)
class _Ready:
    """A graph on its engines: which arguments they read, and what they may be."""

    taken: Taken
    made: Made
    limits: tuple[Limit, ...]
    layouts: tuple[tuple[int, ...] | None, ...]
    held: frozenset[int]


class GraphCall:
    """Calls a graph; boxed, as AOTAutograd wants it: one list of arguments, one of answers."""

    _boxed_call = True

    def __init__(self, graph: Graph, shop: Workshop, device: torch.device) -> None:
        self._graph, self._shop, self._device = graph, shop, device
        self._bound = tuple(sorted(graph.static))
        self._ready: dict[Weights, _Ready] = {}
        self._grown: dict[str, int] = {}
        self._changes = 0
        self._gave_up = False

    def prepare(self, given: Sequence[Any]) -> None:
        """Compiles the graph for one call's arguments.

        Raises:
            TrtpackError: with ``strict``, whatever failed.
        """
        key = self._weights(given)
        self._forget(key)
        if self._gave_up:
            return
        try:
            self._ready[key] = self._made(given)
        except (BuildCancelled, ConfigError):
            raise
        except Exception as error:
            if self._shop.options.strict:
                raise
            self._give_up(f"it could not be compiled: {_line(error)}")
            _LOG.info("%s runs in PyTorch", self._graph.label, exc_info=error)

    def __call__(self, given: list[Any]) -> Sequence[Any]:
        if not self._gave_up:
            ready = self._ready.get(self._weights(given))
            if ready is None or not self._within(ready, given):
                self.prepare(given)
                ready = self._ready.get(self._weights(given))
            if ready is not None:
                return _run(ready, given)
        answered: Sequence[Any] = self._graph.module(*map(_plain, given))
        return answered

    # --- which engines ---------------------------------------------------------------------------
    def _weights(self, given: Sequence[Any]) -> Weights:
        tensors = [given[position] for position in self._bound]
        try:
            counts = tuple(map(_count, tensors))
        except RuntimeError:  # tensors of inference_mode count nothing
            counts = tuple(0 if t.is_inference() else _count(t) for t in tensors)
        return tuple(map(_place, tensors)), counts

    def _within(self, ready: _Ready, given: Sequence[Any]) -> bool:
        """Whether the engines take an input's sizes; what they should take is noted."""
        takes, fits = ready.taken.takes, True
        for limit in ready.limits:
            size = given[takes[limit.input]].shape[limit.axis]
            if not limit.least <= size <= limit.most:
                self._grown[limit.symbol] = max(size, self._grown.get(limit.symbol, 0))
                fits = False
        return fits

    def _forget(self, key: Weights) -> None:
        """Drops engines of the same parameters with other values."""
        changed = [old for old in self._ready if old != key and old[0] == key[0]]
        for old in changed:
            del self._ready[old]
        self._changes += len(changed)
        if self._changes > MOST_CHANGES:
            self._give_up(f"its weights changed more than {MOST_CHANGES} times")

    def _made(self, given: Sequence[Any]) -> _Ready:
        taken = self._graph.take(given, self._grown)
        samples = [_plain(given[position]) for position in taken.takes]
        if any(sample is None for sample in samples):  # AOTAutograd's own, known when it calls
            samples = []
        label = self._graph.label
        limits = limits_of(taken.captured.graph_module, taken.captured.ranges)
        weights = {name: _plain(given[position]).detach() for name, position in taken.bound.items()}
        place = Place(self._device, weights)
        made = make(taken.captured, self._shop, place, samples, label)
        for segment, reason in made.failed.items():
            first, _, rest = reason.partition("\n")
            _LOG.info("%s: %s runs in PyTorch: %s\n%s", label, segment, first, rest)
            warnings.warn(
                f"{label}: {segment} runs in PyTorch, slower than an engine: {first}",
                DegradedWarning,
                stacklevel=2,
            )
            break  # one will do: they mostly fail for one reason
        held = frozenset(t.untyped_storage().data_ptr() for t in made.weights.values())
        return _Ready(taken, made, limits, tuple(map(_layout, taken.expected)), held)

    def _give_up(self, reason: str) -> None:
        self._gave_up = True
        self._ready.clear()
        text = f"{self._graph.label} runs in PyTorch, slower than an engine: {reason}"
        warnings.warn(text, DegradedWarning, stacklevel=2)


def _run(ready: _Ready, given: Sequence[Any]) -> Sequence[Any]:
    plan, taken = ready.made.plan, ready.taken
    inputs = [_plain(given[position]).detach() for position in taken.takes]
    results = plan.outputs(plan.run(plan.values(inputs)))
    if not TENSORRT_KINDS.issuperset(ready.made.kinds) or not ready.made.kinds:
        results = _apart(results, inputs, ready.held)
    results = [_laid_out(r, layout) for r, layout in zip(results, ready.layouts, strict=True)]
    answered: Sequence[Any] = results
    return answered if taken.rest is None else taken.rest(*given, *results)


def _plain(value: Any) -> Any:
    """A tensor without a subclass that only overrides functions, which Dynamo has traced and gives
    back to the results; all else as it is.

    AOTAutograd looks at a graph's first calls by a mode that takes no subclass.
    """
    kind = type(value)
    if kind in _PLAIN or not isinstance(value, torch.Tensor):
        return value
    if kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return value
    with torch._C._DisableTorchDispatch():
        return value.as_subclass(torch.Tensor)


def _apart(
    results: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor], held: frozenset[int]
) -> list[torch.Tensor]:
    """The results in memory of their own: PyTorch may answer views of what it reads."""
    taken = {t.untyped_storage().data_ptr() for t in inputs}
    apart = []
    for result in results:
        place = result.untyped_storage().data_ptr()
        if place and (place in taken or place in held):
            result = result.clone()
            place = result.untyped_storage().data_ptr()
        taken.add(place)
        apart.append(result)
    return apart


def _layout(value: torch.Tensor) -> tuple[int, ...] | None:
    """The axes from the widest stride to the narrowest, as eager execution answers a tensor; None
    where it is contiguous, or has gaps that no fresh tensor has."""
    if any(_is_untold(size) for size in (*value.shape, *value.stride())):
        return None
    sizes = [_number(size) for size in value.shape]
    strides = [_number(stride) for stride in value.stride()]
    order = sorted(range(len(sizes)), key=lambda axis: (-strides[axis], axis))
    wanted = 1
    for axis in reversed(order):
        if sizes[axis] > 1 and strides[axis] != wanted:
            return None
        wanted *= sizes[axis]
    return None if order == list(range(len(sizes))) else tuple(order)


def _number(size: int | torch.SymInt) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def _is_untold(size: int | torch.SymInt) -> bool:
    """Whether a size is one that only the data tells."""
    return isinstance(size, torch.SymInt) and size.node.hint is None


def _laid_out(result: torch.Tensor, layout: tuple[int, ...] | None) -> torch.Tensor:
    """The same values, laid out in memory as eager execution does it."""
    if layout is None:
        return result.contiguous()
    there = [0] * len(layout)
    for place, axis in enumerate(layout):
        there[axis] = place
    return result.permute(layout).contiguous().permute(there)


def _line(error: Exception) -> str:
    text = error.message if isinstance(error, TrtpackError) else f"{type(error).__name__}: {error}"
    return text.strip().partition("\n")[0]
