# SPDX-License-Identifier: Apache-2.0
"""Finds the layers that make TensorRT refuse a network, by building parts of it.

TensorRT often names the layer. Where it does not, or names a whole group that it fused, halves are
built: the layers before and after a cut, with the tensors across it as outputs and inputs. What
fails alone is halved again. Layers that fail only together are narrowed from both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trtpack_runtime import dims
from trtpack_runtime.dims import Expr
from trtpack_runtime.errors import BuildCancelled, BuildKilled, EngineBuildError
from trtpack_runtime.network import Layer, Network, Profile, Tensor

MAX_BUILDS = 32
"""The most parts that are built for one network; then what is known by then has to do."""

_LONGEST_REASON = 240

Probe = Callable[[Network], None]
"""Builds a network and forgets the engine; raises EngineBuildError where TensorRT refuses it."""


def offending_layers(network: Network, error: EngineBuildError, probe: Probe) -> tuple[str, ...]:
    """The layers TensorRT refused, as few as can be told; empty where it is about none of them.

    Errors of ``probe`` that are not about layers go through: a cancelled or killed build, a device.
    """
    known = {layer.name for layer in network.layers}
    named = tuple(name for name in error.layers if name in known)
    if len(named) == 1:
        return named
    search = _Search(network, probe)
    if not search.builds_anything():
        return ()
    return search.run() or named


def said(error: EngineBuildError, name: str) -> str:
    """What TensorRT said of the engine ``name``, in one line of bearable length."""
    text = " ".join(str(error).split()).removeprefix(f"{name}: ")
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def part_of(network: Network, first: int, last: int) -> Network | None:
    """Layers ``first`` to ``last`` (not included) as a network of their own.

    Its inputs are what they read, and the network's inputs that their sizes are of. None where that
    is no network: a tensor across the cut whose size only data tells, or nothing is computed.
    """
    layers = network.layers[first:last]
    made = {name for layer in layers for name in layer.outputs}
    later = {n for layer in network.layers[last:] for n in layer.operand_names()}
    outputs = [
        name
        for layer in layers
        for name in layer.outputs
        if name in later or name in network.outputs
    ]
    read = dict.fromkeys(n for layer in layers for n in layer.operand_names() if n not in made)
    crossing = [network.tensor(n) for n in read if n in network.tensors]
    declared = {tensor.name for tensor in network.inputs}
    sizes = {name for layer in layers for name in _sizes_of(layer.attributes.values())}
    sizes |= {n for t in (*crossing, *_tensors(network, layers)) for n in _sizes_of(t.shape)}
    if not outputs or not _known(crossing, declared):
        return None
    sizes &= declared
    kept = tuple(t for t in network.inputs if t.name in read or t.name in sizes)
    while missing := {n for t in kept for n in _sizes_of(t.shape)} - {t.name for t in kept}:
        kept = tuple(t for t in network.inputs if t in kept or t.name in missing)
    return Network(
        (*kept, *crossing),
        tuple(outputs),
        {n: c for n, c in network.constants.items() if n in read},
        layers,
        {name: network.tensors[name] for layer in layers for name in layer.outputs},
        _profiles(network, kept, crossing),
    )


def _profiles(
    network: Network, kept: Iterable[Tensor], crossing: Iterable[Tensor]
) -> tuple[Profile, ...]:
    static = {t.name: (t.shape,) * 3 for t in network.inputs if t.is_static}
    found = []
    for profile in network.profiles:
        known = {**static, **profile.shapes}
        shapes: dict[str, Any] = {t.name: known[t.name] for t in kept if not t.is_static}
        for tensor in crossing:
            if not tensor.is_static:
                shapes[tensor.name] = tuple(_evaluated(tensor, known, i) for i in range(3))
        if shapes:
            found.append(Profile(shapes))
    return tuple(found)


def _evaluated(tensor: Tensor, known: Mapping[str, Any], which: int) -> tuple[int, ...]:
    return tuple(
        dims.evaluate(size, lambda name, axis: known[name][which][axis]) for size in tensor.shape
    )


def _tensors(network: Network, layers: Iterable[Layer]) -> list[Tensor]:
    return [network.tensors[name] for layer in layers for name in layer.outputs]


def _known(tensors: Iterable[Tensor], declared: set[str]) -> bool:
    """Whether every size of these follows from the network's inputs."""
    return all(name in declared for t in tensors for name in _sizes_of(t.shape))


def _sizes_of(values: Iterable[Any]) -> set[str]:
    """The tensors whose dims stand in some sizes."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, Expr):
            found.update(tensor for tensor, _ in dims.atoms(value))
        elif isinstance(value, tuple):
            found |= _sizes_of(value)
    return found


class _Search:
    """Builds parts of a network, each once, and not more than ``MAX_BUILDS``."""

    def __init__(self, network: Network, probe: Probe) -> None:
        self.network, self.probe = network, probe
        self.left = MAX_BUILDS
        self.known: dict[tuple[int, int], bool] = {(0, len(network.layers)): True}
        self.named: set[str] = set()

    def builds_anything(self) -> bool:
        """Whether a network of one harmless layer is built: else no layer is to blame."""
        x = Tensor("x", "FLOAT", (1,))
        layer = Layer("activation", "y", {"input": "x"}, {"type": "RELU"}, ("y",))
        control = Network((x,), ("y",), {}, (layer,), {"y": Tensor("y", "FLOAT", (1,))})
        return not self._refused(control)

    def run(self) -> tuple[str, ...]:
        """The names of the layers that are refused."""
        found = [name for pair in self._within(0, len(self.network.layers)) for name in pair]
        return tuple(dict.fromkeys(found))

    def _within(self, first: int, last: int) -> list[tuple[str, ...]]:
        """Groups of layers that fail, in a range that does."""
        if last - first == 1 or self.left <= 0:
            return [self._names(first, last)] if last - first <= self._few() else []
        middle = (first + last) // 2
        parts = [(first, middle), (middle, last)]
        failing = [part for part in parts if self.fails(*part)]
        if failing:
            return [group for part in failing for group in self._within(*part)]
        return [self._narrowed(first, middle, last)]

    def _few(self) -> int:
        """How many layers may be blamed together when builds have run out."""
        return max(4, len(self.network.layers) // 8)

    def _narrowed(self, first: int, middle: int, last: int) -> tuple[str, ...]:
        """Layers around a cut that fail only together, narrowed from both ends."""
        low, high = first, middle  # [low, last) fails, [high, last) does not
        while high - low > 1 and self.left > 0:
            cut = (low + high) // 2
            low, high = (cut, high) if self.fails(cut, last) else (low, cut)
        start, low, high = low, middle, last  # [start, high) fails, [start, low) does not
        while high - low > 1 and self.left > 0:
            cut = (low + high) // 2
            low, high = (low, cut) if self.fails(start, cut) else (cut, high)
        return self._names(start, high)

    def _names(self, first: int, last: int) -> tuple[str, ...]:
        names = tuple(layer.name for layer in self.network.layers[first:last])
        told = tuple(name for name in names if name in self.named)
        return told or names

    def fails(self, first: int, last: int) -> bool:
        """Whether TensorRT refuses a part; one that is no network does not count as refused."""
        if (first, last) not in self.known:
            part = part_of(self.network, first, last)
            self.known[first, last] = part is not None and self._refused(part)
        return self.known[first, last]

    def _refused(self, network: Network) -> bool:
        if self.left <= 0:
            return False
        self.left -= 1
        try:
            self.probe(network)
        except (BuildCancelled, BuildKilled):
            raise
        except EngineBuildError as error:
            if len(error.layers) == 1:
                self.named.update(error.layers)
            return True
        return False
