# SPDX-License-Identifier: Apache-2.0
"""Records a network layer by layer, inferring every output's type and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from trtpack_runtime import dims
from trtpack_runtime.network import Constant, Layer, Network, Profile, Tensor

from .infer import infer

Operands = Mapping[str, Tensor | Sequence[Tensor] | None]


class Recorder:
    """A network under construction. Names given by the caller are made unique by a suffix."""

    def __init__(self) -> None:
        self._inputs: list[Tensor] = []
        self._constants: dict[str, Constant] = {}
        self._layers: list[Layer] = []
        self._tensors: dict[str, Tensor] = {}
        self._taken: set[str] = set()
        self._known: dict[object, tuple[Tensor, ...]] = {}

    def region(self) -> Recorder:
        """A recorder for a region of this network: names and constants are shared."""
        inner = Recorder()
        inner._constants, inner._taken = self._constants, self._taken
        return inner

    def input(self, tensor: Tensor) -> Tensor:
        """Declares a network input."""
        self._inputs.append(tensor)
        self._taken.add(tensor.name)
        return tensor

    def region_input(self, like: Tensor, name: str) -> Tensor:
        """Declares a region's next input, of ``like``'s type and shape."""
        return self.input(Tensor(self._unique(name), like.dtype, like.shape))

    def constant(
        self,
        dtype: str,
        shape: tuple[int, ...],
        data: str,
        recipe: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Declares the stored tensor ``data`` as a constant; the same one twice is one constant."""
        name = data
        known = self._constants.get(name)
        if known is None:
            self._constants[name] = Constant(name, dtype, shape, data, recipe)
            self._taken.add(name)
        return Tensor(name, dtype, shape)

    def makes(self, tensor: Tensor) -> bool:
        """Whether a tensor is the output of a layer recorded here."""
        return tensor.name in self._tensors

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether a tensor was declared by ``constant``."""
        return tensor.name in self._constants

    def add(
        self,
        kind: str,
        operands: Operands,
        attributes: Mapping[str, Any],
        *,
        name: str,
        origin: str = "",
        regions: Mapping[str, Network] | None = None,
    ) -> tuple[Tensor, ...]:
        """Adds one layer and answers its outputs; the same layer twice is one layer.

        Absent optional operands and attributes are given as None. ``regions`` are what recorders
        of ``region`` finished.

        Raises:
            NetworkError: an unknown kind, or operands or attributes the kind does not take.
        """
        given = {k: v for k, v in operands.items() if v is not None}
        attributes = {k: _frozen(v) for k, v in attributes.items() if v is not None}
        names = {
            k: v.name if isinstance(v, Tensor) else tuple(t.name for t in v)
            for k, v in given.items()
        }
        key = (kind, tuple(sorted(names.items())), tuple(sorted(attributes.items())))
        if key in self._known and not regions:
            return self._known[key]
        results = infer(kind, given, attributes, regions or {})
        unique = self._unique(name)
        suffixes = [""] if len(results) == 1 else [f".{i}" for i in range(len(results))]
        outputs = tuple(
            Tensor(unique + suffix, dtype, dims.owned(shape, unique + suffix))
            for suffix, (dtype, shape) in zip(suffixes, results, strict=True)
        )
        self._tensors.update((t.name, t) for t in outputs)
        self._taken.update(t.name for t in outputs)
        self._known[key] = outputs
        self._layers.append(
            Layer(
                kind,
                unique,
                names,
                attributes,
                tuple(t.name for t in outputs),
                origin,
                regions or {},
            )
        )
        return outputs

    def finish(self, outputs: Sequence[str], profiles: Sequence[Profile] = ()) -> Network:
        """The network with these outputs; layers and constants nothing needs are left out."""
        kept, needed = live(self._layers, outputs)
        return Network(
            tuple(self._inputs),
            tuple(outputs),
            {k: c for k, c in self._constants.items() if k in needed},
            kept,
            {name: self._tensors[name] for layer in kept for name in layer.outputs},
            tuple(profiles),
        )

    def finish_region(self, outputs: Sequence[str]) -> Network:
        """The region with these outputs; its constants stay with the network around it."""
        return replace(self.finish(outputs), constants={})

    def _unique(self, name: str) -> str:
        candidate, n = name, 1
        while candidate in self._taken:
            n += 1
            candidate = f"{name}.{n}"
        self._taken.add(candidate)
        return candidate


def live(layers: Sequence[Layer], outputs: Sequence[str]) -> tuple[tuple[Layer, ...], set[str]]:
    """The layers that outputs need, in their order, and the names of all that they need."""
    needed = set(outputs)
    kept: list[Layer] = []
    for layer in reversed(layers):
        if needed.isdisjoint(layer.outputs):
            continue
        kept.append(layer)
        needed.update(layer.operand_names(), layer.sizes_read())
    return tuple(reversed(kept)), needed


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value
