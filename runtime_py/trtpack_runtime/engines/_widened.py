# SPDX-License-Identifier: Apache-2.0
"""Quantized networks as weakly typed ones take them: in FLOAT, with numbers of few bits by scales.

Release 8 dequantizes to FLOAT. A cast to HALF behind a dequantizing layer parts it from the layer
that would compute in INT8, and such a network is refused or slow (measured on 8.6). So what is HALF
there is declared FLOAT, and the flags let TensorRT compute it in HALF, FLOAT or, between scales, in
INT8. Only what was FLOAT before is held to it.

8.6 leaves out scales that it sees no gain in, such as those of weights that nothing multiplies in
INT8 (measured), and computes with what is behind them. So weights are rounded here already: they
come through their scales as they are.
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
    scaled = _scaled(network)
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
        constants={
            name: _constant(network, constant, weights, made, scaled.get(name))
            for name, constant in network.constants.items()
        },
        layers=(*casts, *wide.layers),
        tensors={**{tensor.name: tensor for tensor in entering.values()}, **wide.tensors},
    )
    return Given(given, made, untold)


@dataclass(frozen=True)
class _Scale:
    """What rounds a constant: the scale's name, of one or as many as it has along ``axis``."""

    name: str
    axis: int | None


def _scaled(network: Network) -> dict[str, _Scale]:
    """The constants that one scale rounds to INT8 wherever they are read."""
    found: dict[str, set[_Scale | None]] = {}
    for layer in network.every_layer():
        for name in layer.operand_names():
            rounds = layer.kind == "quantize" and layer.operands["input"] == name
            scale = str(layer.operands.get("scale"))
            plain = rounds and scale in network.constants
            found.setdefault(name, set()).add(
                _Scale(scale, layer.attributes.get("axis"))
                if plain and layer.attributes["output_type"] == "INT8"
                else None
            )
    only = {name: scales.pop() for name, scales in found.items() if len(scales) == 1}
    return {name: scale for name, scale in only.items() if scale and name in network.constants}


def _constant(
    network: Network,
    constant: Constant,
    weights: Mapping[str, Any],
    made: dict[str, bytes],
    by: _Scale | None,
) -> Constant:
    if constant.dtype not in _NARROW:
        return constant
    data = f"{constant.data}|float" + (f"|{by.name}|{by.axis}" if by else "")
    if data not in made:
        numbers = _floats(weights, constant).reshape(constant.shape)
        if by is not None:
            numbers = _rounded(numbers, _floats(weights, network.constants[by.name]), by.axis)
        made[data] = numbers.tobytes()
    return replace(constant, dtype="FLOAT", data=data)


def _rounded(numbers: Any, scale: Any, axis: int | None) -> Any:
    """The numbers as they are after a scale, which leaves them so when it is used again."""
    import numpy

    along = [1] * numbers.ndim
    if axis is not None:
        along[axis] = -1
    scale = scale.reshape(along)
    few = numpy.rint(numbers / scale).clip(-128, 127)
    return few.astype(numpy.float32) * scale


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


def _floats(weights: Mapping[str, Any], constant: Constant) -> Any:
    """A stored tensor in one row of numbers of 32 bits; exact."""
    import numpy

    stored = weights[constant.data]
    buffer = stored.buffer if hasattr(stored, "buffer") else stored
    if constant.dtype == "BF16":
        return (numpy.frombuffer(buffer, numpy.uint16).astype(numpy.uint32) << 16).view("f4")
    stored_as = numpy.float16 if constant.dtype == "HALF" else numpy.float32
    return numpy.frombuffer(buffer, stored_as).astype(numpy.float32)
