# SPDX-License-Identifier: Apache-2.0
"""Finds the layer where an engine begins to compute something else than the network says.

An engine's inner tensors cannot simply be read: seeing one changes how TensorRT fuses around it. So
few are looked at together. ``search`` looks at tensors spread over the network, then between the
first that departs and those before it that do not, until a layer departs whose operands are right;
``compare_all`` looks at all, a chunk after the other. What "looking" is, the caller says: it hands
in a function from tensor names to their values, be it an engine's or another evaluation's.

Floating-point tensors are judged by their relative L2 error, others by the share of elements that
differ; where one side is not finite and the other is, the error is infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace

import torch

from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.network import Layer, Network
from trtpack_runtime.reference import evaluate
from trtpack_runtime.smoke import DEFAULT_TOLERANCE, Metrics, compare
from trtpack_runtime.tf32 import full_float32

from .layer_errors import AccuracyReport, LayerError, guilty_layers, with_consumers
from .origins import origin_of
from .precision_pins import promoted, promoted_values

Values = Mapping[str, torch.Tensor]
RunChunk = Callable[[Sequence[str]], Values]
"""Answers the values of tensors of the network by name; those it cannot see are left out."""

MOST_TENSORS, MOST_BYTES = 48, 1 << 30
"""A chunk's bounds."""
_EXACT = 1e-3
"""What is tolerated where no type says more."""


class Expected:
    """What a network's layers should answer, evaluated when asked for and kept in bounds.

    Unless ``own_types``, the network is evaluated with every HALF and BF16 as FLOAT, so that
    rounding to the smaller types shows as an error too.
    """

    def __init__(
        self, network: Network, stored: Values, inputs: Values, *, own_types: bool = False
    ) -> None:
        self._network = network if own_types else promoted(network)
        self._stored = stored if own_types else promoted_values(network, stored)
        self._inputs = dict(inputs)
        for tensor in self._network.inputs:
            wanted = getattr(torch, DTYPES[tensor.dtype].torch)
            self._inputs[tensor.name] = self._inputs[tensor.name].to(wanted)
        seen = _Seen(network)
        self._evaluate(seen)
        self.nbytes: Mapping[str, int] = seen.nbytes
        """Every layer output's size."""
        self.overflowing: frozenset[str] = frozenset(seen.overflowing)
        """The layer outputs that hold numbers beyond their declared type."""

    def values(self, names: Sequence[str]) -> Values:
        """These layer outputs, in the host's memory."""
        kept = _Kept(names)
        self._evaluate(kept)
        return kept

    def _evaluate(self, kept: MutableMapping[str, torch.Tensor]) -> None:
        with torch.no_grad(), full_float32():
            evaluate(self._network, self._stored, self._inputs, keep=kept)


def evaluator(network: Network, stored: Values, inputs: Values) -> RunChunk:
    """Looks at tensors of a network as PyTorch computes them in the network's own types."""
    expected = Expected(network, stored, inputs, own_types=True)
    return expected.values


def worst_output(
    network: Network, before: Network, stored: Values, inputs: Values, expected: Expected
) -> float:
    """The largest error among a network's outputs as PyTorch computes it in its own types.

    ``network`` may have been pinned from ``before``, whose outputs ``expected`` tells.
    """
    constants = promoted_values(before, stored)
    with torch.no_grad(), full_float32():
        answers = evaluate(network, constants, inputs)
    wanted = expected.values(before.outputs)
    return max(
        (
            _error(before.tensors[name].dtype, compare(answer.to(wanted[name].dtype), wanted[name]))
            for name, answer in zip(network.outputs, answers, strict=True)
        ),
        default=0.0,
    )


def compare_all(
    network: Network,
    expected: Expected,
    run: RunChunk,
    *,
    tolerance: float | None = None,
    on_chunk: Callable[[int, int], None] | None = None,
) -> AccuracyReport:
    """Looks at every layer output. ``on_chunk`` is told the number of each chunk and of all."""
    comparing = _Comparing(network, expected, run, tolerance)
    chunks = list(chunked([n for layer in network.layers for n in layer.outputs], expected.nbytes))
    for number, names in enumerate(chunks, 1):
        if on_chunk is not None:
            on_chunk(number, len(chunks))
        comparing.look(names)
    return comparing.report()


def search(
    network: Network,
    expected: Expected,
    run: RunChunk,
    *,
    tolerance: float | None = None,
    width: int = 8,
    on_chunk: Callable[[int, int], None] | None = None,
) -> AccuracyReport:
    """Looks for the first layer that departs, at ``width`` tensors at a time.

    A tensor that is right vouches for everything it is computed from, so an error that vanishes
    again on all ways to the outputs is not found; ``compare_all`` finds it.
    """
    comparing = _Comparing(network, expected, run, tolerance)
    order = [name for layer in network.layers for name in layer.outputs]
    candidates, rounds = order, 0
    while candidates:
        rounds += 1
        if on_chunk is not None:
            on_chunk(rounds, 0)
        probes = _spread(candidates, width)
        if rounds == 1:
            probes = list(dict.fromkeys([*probes, *network.outputs]))
        for names in chunked(probes, expected.nbytes):
            comparing.look(names)
        first = comparing.first_departing(order)
        if first is None:
            break
        candidates = comparing.unseen_before(first, order)
    return comparing.report()


def chunked(
    names: Sequence[str],
    nbytes: Mapping[str, int],
    most: int = MOST_TENSORS,
    most_bytes: int = MOST_BYTES,
) -> Iterator[list[str]]:
    """The names in order, in lists of bounded length and size; a list has at least one."""
    chunk: list[str] = []
    size = 0
    for name in names:
        if chunk and (len(chunk) >= most or size + nbytes[name] > most_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += nbytes[name]
    if chunk:
        yield chunk


class _Comparing:
    """What was looked at so far."""

    def __init__(
        self, network: Network, expected: Expected, run: RunChunk, tolerance: float | None
    ) -> None:
        self._network, self._expected, self._run = network, expected, run
        self._tolerance = tolerance
        self._maker = {name: layer for layer in network.layers for name in layer.outputs}
        self._found: dict[str, LayerError] = {}
        self._unseen: dict[str, None] = {}
        self._chunks = 0

    def look(self, names: Sequence[str]) -> None:
        """Looks at tensors and compares them with what they should be."""
        self._chunks += 1
        seen = self._run(names)
        wanted = self._expected.values(names)
        for name in names:
            if name in seen:
                self._found[name] = self._compared(name, seen[name], wanted[name])
            else:
                self._unseen[name] = None

    def first_departing(self, order: Sequence[str]) -> str | None:
        """The first tensor seen that departs."""
        return next((n for n in order if n in self._found and self._found[n].departs), None)

    def unseen_before(self, name: str, order: Sequence[str]) -> list[str]:
        """The tensors not looked at on the ways to a tensor, up to those that are right."""
        waiting, reached = [name], set()
        while waiting:
            for operand in self._maker[waiting.pop()].operand_names():
                if operand in reached or operand not in self._maker or operand in self._found:
                    continue
                reached.add(operand)
                waiting.append(operand)
        return [n for n in order if n in reached and n not in self._unseen]

    def report(self) -> AccuracyReport:
        """What was found."""
        layers = tuple(
            replace(self._found[name], inherited=self._inherited(layer))
            for layer in self._network.layers
            for name in layer.outputs
            if name in self._found
        )
        first = next((found for found in layers if found.begins), None)
        guilty = guilty_layers(self._network, layers)
        pins = with_consumers(self._network, guilty, self._expected.overflowing)
        return AccuracyReport(layers, first, tuple(pins), tuple(self._unseen), self._chunks)

    def _inherited(self, layer: Layer) -> float | None:
        """The largest error among a layer's operands; where one could not be seen, among its."""
        errors = [0.0]
        waiting, reached = [layer], set[str]()
        while waiting:
            for operand in waiting.pop().operand_names():
                if operand in self._found:
                    errors.append(self._found[operand].error)
                elif operand in self._unseen:
                    if operand not in reached:
                        reached.add(operand)
                        waiting.append(self._maker[operand])
                elif operand in self._maker:
                    return None
        return max(errors)

    def _compared(self, name: str, seen: torch.Tensor, wanted: torch.Tensor) -> LayerError:
        layer, declared = self._maker[name], self._network.tensors[name].dtype
        dtype = DTYPES[declared].torch
        metrics = compare(seen.to(wanted.dtype), wanted)
        error = _error(declared, metrics)
        tolerance = self._tolerance
        if tolerance is None:
            tolerance = float(DEFAULT_TOLERANCE.get(dtype, {}).get("rel_l2", _EXACT))
        return LayerError(
            name, layer.name, layer.kind, declared, origin_of(layer), metrics, error, tolerance
        )


class _Kept(dict[str, torch.Tensor]):
    """Takes every layer output and keeps those asked for, in the host's memory."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._names = frozenset(names)

    def __setitem__(self, name: str, value: torch.Tensor) -> None:
        if name in self._names:
            super().__setitem__(name, value.detach().to("cpu", copy=True))


class _Seen(dict[str, torch.Tensor]):
    """Takes every layer output and keeps only how large it is."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._tensors = network.tensors
        self.nbytes: dict[str, int] = {}
        self.overflowing: set[str] = set()

    def __setitem__(self, name: str, value: torch.Tensor) -> None:
        self.nbytes[name] = value.numel() * value.element_size()
        declared = getattr(torch, DTYPES[self._tensors[name].dtype].torch)
        rounded = value.to(declared) if value.is_floating_point() else value
        if rounded.dtype != value.dtype and bool((rounded.isinf() & value.isfinite()).any()):
            self.overflowing.add(name)


def _error(dtype: str, metrics: Metrics) -> float:
    """One figure for how far a tensor of a type is off."""
    if DTYPES[dtype].kind == "float":
        return metrics.rel_l2
    return metrics.differing / max(metrics.elements, 1)


def _spread(names: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of them, evenly spaced, the last one among them."""
    if len(names) <= count:
        return list(names)
    return [names[(i + 1) * len(names) // count - 1] for i in range(count)]
