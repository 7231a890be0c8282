# SPDX-License-Identifier: Apache-2.0
"""The portable network: what TensorRT will be told to build, as plain data.

Layer kinds, operands and attributes are TensorRT's own (``add_<kind>``, enum *names*), sizes are
expressions (``dims.py``), every cast is a layer. A network is recorded, checked, saved and
evaluated without TensorRT; ``engines/_emit.py`` replays it against whichever release is present.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import dims
from .dims import Dim
from .dtypes import NETWORK_DTYPES
from .errors import BundleError

SCHEMA = "trtpack.network/1"


@dataclass(frozen=True)
class Tensor:
    """A typed, named tensor.

    ``shape`` is over the dims of the network's inputs, and of tensors before it, or itself, whose
    sizes only the data tells.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        """Whether every dim is a number."""
        return dims.is_static(self.shape)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(str(d) for d in self.shape)}]"


@dataclass(frozen=True)
class Constant:
    """A constant of the network: a view of the stored tensor ``data``.

    ``recipe`` replays how the stored tensor follows from the model's parameters (an ATen graph in
    the form of ``aten.py``); None where it *is* a parameter or does not depend on any.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: str
    recipe: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Layer:
    """One layer: its kind (a row of ``layers.py``), operands by name, attributes, outputs.

    ``origin`` is the PyTorch module path and source line it came from. ``regions`` are networks
    that the layer owns: functions of their inputs that read nothing of the network around them but
    its constants, by name, and its sizes. Names are unique over the network and all its regions.
    """

    kind: str
    name: str
    operands: Mapping[str, str | tuple[str, ...]]
    attributes: Mapping[str, Any]
    outputs: tuple[str, ...]
    origin: str = ""
    regions: Mapping[str, Network] = field(default_factory=dict)

    def operand_names(self) -> list[str]:
        """The tensors it reads: operands in order, then the constants that its regions read."""
        names: list[str] = []
        for value in self.operands.values():
            names.extend((value,) if isinstance(value, str) else value)
        for region in self.regions.values():
            names.extend(name for name in region.constants_read() if name not in names)
        return names

    def sizes_read(self) -> set[str]:
        """The tensors whose dims it reads, by its attributes and within its regions."""
        within = [layer.sizes_read() for region in self.regions.values() for layer in region.layers]
        return set(dims.tensors_in(tuple(self.attributes.values()))).union(*within)


@dataclass(frozen=True)
class Profile:
    """The shapes one optimisation profile is for: input name -> (min, opt, max) shapes."""

    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]


@dataclass(frozen=True)
class Network:
    """A whole network. ``layers`` stand in execution order.

    ``outputs`` are distinct layer outputs: inputs, constants and repeated values that a program
    returns are resolved outside the network.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Constant]
    layers: tuple[Layer, ...]
    tensors: Mapping[str, Tensor]
    profiles: tuple[Profile, ...] = field(default=())

    def tensor(self, name: str) -> Tensor:
        """The input, constant or layer output called ``name``; KeyError if there is none."""
        if name in self.tensors:
            return self.tensors[name]
        if name in self.constants:
            constant = self.constants[name]
            return Tensor(name, constant.dtype, constant.shape)
        for tensor in self.inputs:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    def constants_read(self) -> list[str]:
        """The names a region reads that it does not have: constants of the network around it."""
        own = {*self.tensors, *self.constants, *(tensor.name for tensor in self.inputs)}
        read = (name for layer in self.layers for name in layer.operand_names())
        return list(dict.fromkeys(name for name in (*read, *self.outputs) if name not in own))

    def regions(self) -> Iterator[Network]:
        """The networks that its layers own, and those that theirs do."""
        for layer in self.layers:
            for region in layer.regions.values():
                yield region
                yield from region.regions()

    def every_layer(self) -> Iterator[Layer]:
        """Its layers and those of all regions."""
        for network in (self, *self.regions()):
            yield from network.layers

    def every_dtype(self) -> set[str]:
        """The types of its inputs, constants and layers' outputs, within regions too."""
        types = {tensor.dtype for tensor in self.inputs}
        types.update(constant.dtype for constant in self.constants.values())
        for network in (self, *self.regions()):
            types.update(tensor.dtype for tensor in network.tensors.values())
        return types

    def constants_scaled(self) -> frozenset[str]:
        """Constants that layers of quantization read: scales, and what is scaled.

        TensorRT wants them known when an engine is built, so an engine keeps them.
        """
        kinds = ("quantize", "dequantize")
        layers = (layer for layer in self.every_layer() if layer.kind in kinds)
        return frozenset(name for layer in layers for name in layer.operand_names())

    def outputs_by_data(self) -> tuple[str, ...]:
        """The outputs whose shape does not follow from the inputs' shapes alone."""
        given = {tensor.name for tensor in self.inputs}
        return tuple(
            name
            for name in self.outputs
            if any(of not in given for d in self.tensors[name].shape for of, _ in dims.atoms(d))
        )

    @property
    def is_static(self) -> bool:
        """Whether every input has a fixed shape."""
        return all(tensor.is_static for tensor in self.inputs)

    def to_bytes(self) -> bytes:
        """Canonical UTF-8 JSON: equal networks give equal bytes."""
        text = json.dumps(to_json(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return text.encode() + b"\n"

    def digest(self) -> str:
        """The sha256 of the canonical bytes, in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def to_json(network: Network) -> dict[str, Any]:
    """The network as plain JSON values; non-finite numbers become strings."""
    return {
        "schema": SCHEMA,
        "inputs": [_tensor_to_json(t) for t in network.inputs],
        "outputs": list(network.outputs),
        "constants": [
            {
                "name": c.name,
                "dtype": c.dtype,
                "shape": list(c.shape),
                "data": c.data,
                **({"recipe": dict(c.recipe)} if c.recipe else {}),
            }
            for c in network.constants.values()
        ],
        "layers": [_layer_to_json(layer, network) for layer in network.layers],
        "profiles": [
            {name: [list(s) for s in shapes] for name, shapes in profile.shapes.items()}
            for profile in network.profiles
        ],
    }


def from_json(value: Mapping[str, Any]) -> Network:
    """The inverse of ``to_json``.

    Raises:
        BundleError: another schema, or a value that is not what the format says.
    """
    schema = value.get("schema") if isinstance(value, Mapping) else None
    if schema != SCHEMA:
        raise BundleError(
            f"cannot read a network of format {schema!r}, this runtime reads {SCHEMA!r}",
            hint="update trtpack-runtime on this device",
        )
    try:
        layers, tensors = _layers_from_json(value["layers"])
        return Network(
            tuple(_tensor_from_json(t) for t in value["inputs"]),
            tuple(value["outputs"]),
            {
                c["name"]: Constant(
                    c["name"], _dtype(c["dtype"]), _ints(c["shape"]), c["data"], c.get("recipe")
                )
                for c in value["constants"]
            },
            layers,
            tensors,
            tuple(
                Profile({k: (_ints(v[0]), _ints(v[1]), _ints(v[2])) for k, v in p.items()})
                for p in value["profiles"]
            ),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"malformed network: {type(error).__name__}: {error}", hint="build the bundle again"
        ) from error


def from_bytes(data: bytes | memoryview) -> Network:
    """Reads what ``Network.to_bytes`` wrote; raises as ``from_json``."""
    try:
        value = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"malformed network: {error}", hint="build the bundle again") from error
    return from_json(value)


def attribute_to_json(value: Any) -> Any:
    """An attribute value as JSON: sizes as expressions, non-finite floats as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, dims.Expr):
        return dims.to_json(value)
    if isinstance(value, tuple | list):
        return [attribute_to_json(v) for v in value]
    return value


def attribute_from_json(value: Any) -> Any:
    """The inverse of ``attribute_to_json``; lists come back as tuples."""
    if isinstance(value, list):
        return tuple(attribute_from_json(v) for v in value)
    if isinstance(value, dict):
        return float(value["float"]) if "float" in value else dims.from_json(value)
    return value


def _layer_to_json(layer: Layer, network: Network) -> dict[str, Any]:
    regions = {name: _region_to_json(region) for name, region in layer.regions.items()}
    return {
        "kind": layer.kind,
        "name": layer.name,
        "operands": {k: v if isinstance(v, str) else list(v) for k, v in layer.operands.items()},
        "attributes": {k: attribute_to_json(v) for k, v in layer.attributes.items()},
        "outputs": [_tensor_to_json(network.tensors[name]) for name in layer.outputs],
        "origin": layer.origin,
        **({"regions": regions} if regions else {}),
    }


def _layers_from_json(items: Any) -> tuple[tuple[Layer, ...], dict[str, Tensor]]:
    tensors: dict[str, Tensor] = {}
    layers = []
    for item in items:
        outputs = [_tensor_from_json(t) for t in item["outputs"]]
        tensors.update((t.name, t) for t in outputs)
        layers.append(
            Layer(
                item["kind"],
                item["name"],
                {k: v if isinstance(v, str) else tuple(v) for k, v in item["operands"].items()},
                {k: attribute_from_json(v) for k, v in item["attributes"].items()},
                tuple(t.name for t in outputs),
                item.get("origin", ""),
                {k: _region_from_json(v) for k, v in item.get("regions", {}).items()},
            )
        )
    return tuple(layers), tensors


def _region_to_json(region: Network) -> dict[str, Any]:
    return {
        "inputs": [_tensor_to_json(t) for t in region.inputs],
        "outputs": list(region.outputs),
        "layers": [_layer_to_json(layer, region) for layer in region.layers],
    }


def _region_from_json(value: Mapping[str, Any]) -> Network:
    layers, tensors = _layers_from_json(value["layers"])
    inputs = tuple(_tensor_from_json(t) for t in value["inputs"])
    return Network(inputs, tuple(value["outputs"]), {}, layers, tensors)


def _tensor_to_json(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": [dims.to_json(d) for d in tensor.shape],
    }


def _tensor_from_json(value: Mapping[str, Any]) -> Tensor:
    shape = tuple(dims.from_json(d) for d in value["shape"])
    return Tensor(value["name"], _dtype(value["dtype"]), shape)


def _ints(value: Any) -> tuple[int, ...]:
    if not all(type(item) is int for item in value):
        raise ValueError(f"{value!r} is no list of numbers")
    return tuple(value)


def _dtype(name: str) -> str:
    if name not in NETWORK_DTYPES:
        raise ValueError(f"{name!r} is not a TensorRT type")
    return name
