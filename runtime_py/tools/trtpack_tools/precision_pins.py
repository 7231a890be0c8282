# SPDX-License-Identifier: Apache-2.0
"""Makes single layers of a network compute in FLOAT, or the whole network.

A pinned layer's operands are cast up and its outputs cast back, by layers of their own, so that
every release of TensorRT follows: strongly typed networks as they stand, 8.6 by the precisions the
layers then declare. Between two pinned layers there is no cast. A constant gets a FLOAT twin with a
recipe, so that new weights can be refitted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trtpack_runtime.dims import owned
from trtpack_runtime.errors import ConfigError, NetworkError
from trtpack_runtime.layers import FLOATS
from trtpack_runtime.network import Constant, Layer, Network, Tensor

from .check import check_network
from .infer import infer
from .recorder import live

if TYPE_CHECKING:
    import torch

_TYPED = ("to_type", "output_type")
"""Attributes that name the type of a layer's output."""


def pin(network: Network, layers: Collection[str], dtype: str = "FLOAT") -> Network:
    """The network with these layers, by name, computing in ``dtype``.

    Its new constants name stored tensors that ``new_constants`` makes.

    Raises:
        ConfigError: no such layer, or one that has no precision to choose.
    """
    if dtype not in FLOATS:
        raise ConfigError(f"cannot pin layers to {dtype}", hint="choose FLOAT, HALF or BF16")
    known = {layer.name: layer for layer in network.layers}
    for name in layers:
        if name not in known:
            raise ConfigError(
                f"the network has no layer {name!r}", hint="see its layers with trtpack extract"
            )
        if reason := why_not(network, known[name], dtype):
            raise ConfigError(f"cannot pin {name!r}: {reason}", hint="choose other layers")
    pinned = _Pinning(network, frozenset(layers), dtype).run()
    check_network(pinned)
    return pinned


def why_not(network: Network, layer: Layer, dtype: str = "FLOAT") -> str | None:
    """Why a layer cannot be pinned, or None."""
    if layer.kind == "cast":
        return "it is a cast, which computes nothing"
    if layer.regions:
        return "it owns layers, which cannot be pinned one by one"
    names = [*layer.operand_names(), *layer.outputs]
    types = {network.tensor(name).dtype for name in names} & FLOATS
    if not types:
        return "it computes with no floating-point numbers"
    if types == {dtype}:
        return f"it computes in {dtype} already"
    return None


def new_constants(before: Network, after: Network) -> list[Constant]:
    """The constants of ``after`` whose stored tensors ``before`` does not have."""
    stored = {constant.data for constant in before.constants.values()}
    return [constant for constant in after.constants.values() if constant.data not in stored]


def promoted(network: Network) -> Network:
    """The network with every HALF and BF16 as FLOAT: inputs, constants, layers and casts.

    What it computes is free of rounding to the smaller types; see ``promoted_values``.
    """
    layers = (
        replace(
            layer,
            attributes=_typed(layer.attributes),
            regions={name: promoted(region) for name, region in layer.regions.items()},
        )
        for layer in network.layers
    )
    return replace(
        network,
        inputs=tuple(replace(t, dtype=_promoted(t.dtype)) for t in network.inputs),
        constants={
            name: replace(c, dtype=_promoted(c.dtype), data=_twin(c.data, c.dtype, "FLOAT"))
            for name, c in network.constants.items()
        },
        layers=tuple(layers),
        tensors={
            name: replace(tensor, dtype=_promoted(tensor.dtype))
            for name, tensor in network.tensors.items()
        },
    )


def promoted_values(
    network: Network, stored: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The stored tensors that ``promoted(network)`` and networks pinned from it read."""
    found: dict[str, torch.Tensor] = {}
    for constant in network.constants.values():
        value = stored[constant.data]
        found[constant.data] = value
        if _promoted(constant.dtype) != constant.dtype:
            found[_twin(constant.data, constant.dtype, "FLOAT")] = value.float()
    return found


class _Pinning:
    """One rewriting of a network. Layers keep their names, which pins, profiles and errors go by,
    so it writes them itself: a ``Recorder`` names each output after its layer."""

    def __init__(self, network: Network, names: frozenset[str], dtype: str) -> None:
        self._network, self._names, self._dtype = network, names, dtype
        self._constants = dict(network.constants)
        self._tensors = dict(network.tensors)
        self._taken = {
            *self._constants,
            *self._tensors,
            *(tensor.name for tensor in network.inputs),
            *(layer.name for layer in network.every_layer()),
            *(name for layer in network.every_layer() for name in layer.outputs),
        }
        self._layers: list[Layer] = []
        self._up = self._pinned_before()
        """Value -> its twin in the pinned type."""

    def run(self) -> Network:
        for layer in self._network.layers:
            if layer.name in self._names:
                self._pin(layer)
            else:
                self._layers.append(layer)
        kept, needed = live(self._layers, self._network.outputs)
        return replace(
            self._network,
            layers=kept,
            constants={k: c for k, c in self._constants.items() if k in needed},
            tensors={name: self._tensors[name] for layer in kept for name in layer.outputs},
        )

    def _pinned_before(self) -> dict[str, str]:
        """The twins that earlier pins left behind casts of their own."""
        twins = {}
        for layer in self._network.layers:
            source, output = layer.operands.get("input"), layer.outputs[0]
            ours = isinstance(source, str) and source.startswith(f"{output}|{self._dtype.lower()}")
            if layer.kind == "cast" and ours:
                twins[output] = str(source)
        return twins

    def _pin(self, layer: Layer) -> None:
        operands = {
            key: self._raised(value, layer)
            if isinstance(value, str)
            else tuple(self._raised(item, layer) for item in value)
            for key, value in layer.operands.items()
        }
        attributes = _typed(layer.attributes, self._dtype)
        outputs = tuple(
            self._named(name, suffix=self._dtype.lower())
            if self._is_other(self._network.tensors[name].dtype)
            else name
            for name in layer.outputs
        )
        self._declare(layer, operands, attributes, outputs)
        self._layers.append(
            replace(layer, operands=operands, attributes=attributes, outputs=outputs)
        )
        for name, output in zip(layer.outputs, outputs, strict=True):
            if output != name:
                self._up[name] = output
                self._cast(output, name, self._network.tensors[name].dtype, layer)

    def _raised(self, name: str, layer: Layer) -> str:
        """A value in the pinned type; the value itself where it is no number of another."""
        tensor = self._network.tensor(name)
        if not self._is_other(tensor.dtype):
            return name
        if name not in self._up:
            if name in self._constants:
                self._up[name] = self._constant(self._constants[name])
            else:
                raised = self._named(name, suffix=self._dtype.lower())
                self._tensors[raised] = Tensor(raised, self._dtype, tensor.shape)
                self._cast(name, raised, self._dtype, layer)
                self._up[name] = raised
        return self._up[name]

    def _cast(self, source: str, output: str, dtype: str, layer: Layer) -> None:
        name = output if output not in self._names_of_layers() else self._named(output, "cast")
        self._layers.append(
            Layer("cast", name, {"input": source}, {"to_type": dtype}, (output,), layer.origin)
        )

    def _names_of_layers(self) -> set[str]:
        return {layer.name for layer in (*self._network.layers, *self._layers)}

    def _constant(self, constant: Constant) -> str:
        twin = self._named(constant.name, suffix=self._dtype.lower())
        source = constant.recipe or {"constant": constant.data}
        recipe = {
            "op": "aten._to_copy.default",
            "args": [source],
            "kwargs": {"dtype": {"dtype": self._dtype}},
        }
        data = _twin(constant.data, constant.dtype, self._dtype)
        self._constants[twin] = Constant(twin, self._dtype, constant.shape, data, recipe)
        return twin

    def _declare(
        self,
        layer: Layer,
        operands: Mapping[str, Any],
        attributes: Mapping[str, Any],
        outputs: tuple[str, ...],
    ) -> None:
        """Notes the outputs' types; ConfigError where the kind does not take the new ones."""
        given = {
            key: self._value(value)
            if isinstance(value, str)
            else tuple(self._value(item) for item in value)
            for key, value in operands.items()
        }
        try:
            results = infer(layer.kind, given, attributes)
        except NetworkError as error:
            raise ConfigError(
                f"cannot pin {layer.name!r}: {error.message}", hint="choose other layers"
            ) from error
        for name, (dtype, shape) in zip(outputs, results, strict=True):
            self._tensors[name] = Tensor(name, dtype, owned(shape, name))

    def _value(self, name: str) -> Tensor:
        if name in self._constants:
            constant = self._constants[name]
            return Tensor(name, constant.dtype, constant.shape)
        return self._tensors[name] if name in self._tensors else self._network.tensor(name)

    def _is_other(self, dtype: str) -> bool:
        return dtype in FLOATS and dtype != self._dtype

    def _named(self, name: str, suffix: str) -> str:
        candidate, n = f"{name}|{suffix}", 1
        while candidate in self._taken:
            n += 1
            candidate = f"{name}|{suffix}.{n}"
        self._taken.add(candidate)
        return candidate


def _promoted(dtype: str) -> str:
    return "FLOAT" if dtype in FLOATS else dtype


def _typed(attributes: Mapping[str, Any], dtype: str = "FLOAT") -> dict[str, Any]:
    """The attributes with types of floating-point outputs replaced."""
    return {
        key: dtype if key in _TYPED and value in FLOATS else value
        for key, value in attributes.items()
    }


def _twin(data: str, dtype: str, to: str) -> str:
    """The stored name of a constant in another type."""
    return data if dtype == to or dtype not in FLOATS else f"{data}|{to.lower()}"
