# SPDX-License-Identifier: Apache-2.0
"""Quantized networks as weakly typed ones take them: in FLOAT, with numbers of few bits by scales.

Release 8 dequantizes to FLOAT. A cast to HALF behind a dequantizing layer parts it from the layer
that would compute in INT8, and such a network is refused or slow (measured on 8.6). So what is HALF
there is declared FLOAT, and the flags let TensorRT compute it in HALF, FLOAT or, between scales, in
INT8. Only what was FLOAT before is held to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trtpack_runtime.network import Constant, Layer, Network, Tensor

_NARROW = ("HALF", "BF16")
_SCALED = frozenset({"quantize", "dequantize"})


def is_widened(network: Network) -> bool:
    """Whether a weakly typed network has to be widened: it has scales, and types beside FLOAT."""
    kinds = {layer.kind for layer in network.every_layer()}
    return not _SCALED.isdisjoint(kinds) and not network.every_dtype().isdisjoint(_NARROW)


@dataclass(frozen=True)
class Given:
    """The network that TensorRT is given for another.

    Attributes:
        network: with the inputs and outputs of the other, of the same names.
        made: weights that are made for it, in FLOAT, by stored name.
        untold: the names of the layers that may compute in fewer bits than they declare.
    """

    network: Network
    made: Mapping[str, bytes] = field(default_factory=dict)
    untold: frozenset[str] = frozenset()


def widened(network: Network, weights: Mapping[str, Any]) -> Given:
    """FLOAT where a network has HALF or BF16, but for its inputs.

    ``weights`` are its stored tensors, as for ``emit``.
    """
    made: dict[str, bytes] = {}
    untold = frozenset(
        layer.name
        for within in (network, *network.regions())
        for layer in within.layers
        if any(within.tensors[name].dtype in _NARROW for name in layer.outputs)
    )
    narrow = [tensor for tensor in network.inputs if tensor.dtype in _NARROW]
    entering = {tensor.name: _wide_tensor(tensor, f"{tensor.name}|float") for tensor in narrow}
    casts = [_cast(name, tensor.name) for name, tensor in entering.items()]
    wide = _wide(network, {name: tensor.name for name, tensor in entering.items()})
    given = replace(
        wide,
        inputs=network.inputs,
        constants={n: _constant(c, weights, made) for n, c in network.constants.items()},
        layers=(*casts, *wide.layers),
        tensors={**{tensor.name: tensor for tensor in entering.values()}, **wide.tensors},
    )
    return Given(given, made, untold)


def _constant(constant: Constant, weights: Mapping[str, Any], made: dict[str, bytes]) -> Constant:
    if constant.dtype not in _NARROW:
        return constant
    data = f"{constant.data}|float"
    if data not in made:
        stored = weights[constant.data]
        buffer = stored.buffer if hasattr(stored, "buffer") else stored
        made[data] = _floats(buffer, constant.dtype)
    return replace(constant, dtype="FLOAT", data=data)


def _wide(network: Network, renamed: dict[str, str]) -> Network:
    """A network or a region in FLOAT, without the casts that become none."""
    layers = []
    types = {tensor.name: _wide_tensor(tensor).dtype for tensor in network.inputs}
    types |= dict.fromkeys(renamed.values(), "FLOAT")
    types |= {name: _wide_tensor(tensor).dtype for name, tensor in network.tensors.items()}
    for layer in network.layers:
        layer = _wide_layer(layer, renamed)
        (made, *_), read = layer.outputs, layer.operands.get("input")
        is_none = layer.kind == "cast" and types.get(str(read)) == types[made] == "FLOAT"
        if is_none and made not in network.outputs:
            renamed[made] = str(read)
        else:
            layers.append(layer)
    return replace(
        network,
        inputs=tuple(map(_wide_tensor, network.inputs)),
        layers=tuple(layers),
        tensors={n: _wide_tensor(t) for n, t in network.tensors.items() if n not in renamed},
    )


def _wide_layer(layer: Layer, renamed: Mapping[str, str]) -> Layer:
    def now(operand: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(operand, str):
            return renamed.get(operand, operand)
        return tuple(renamed.get(name, name) for name in operand)

    return replace(
        layer,
        operands={name: now(operand) for name, operand in layer.operands.items()},
        attributes={n: "FLOAT" if v in _NARROW else v for n, v in layer.attributes.items()},
        regions={name: _wide(region, {}) for name, region in layer.regions.items()},
    )


def _wide_tensor(tensor: Tensor, name: str = "") -> Tensor:
    dtype = "FLOAT" if tensor.dtype in _NARROW else tensor.dtype
    return replace(tensor, name=name or tensor.name, dtype=dtype)


def _cast(read: str, made: str) -> Layer:
    return Layer("cast", made, {"input": read}, {"to_type": "FLOAT"}, (made,))


def _floats(buffer: Any, dtype: str) -> bytes:
    """Numbers of 16 bits as those of 32; exact."""
    import numpy

    if dtype == "HALF":
        return numpy.frombuffer(buffer, numpy.float16).astype(numpy.float32).tobytes()
    return (numpy.frombuffer(buffer, numpy.uint16).astype(numpy.uint32) << 16).tobytes()
