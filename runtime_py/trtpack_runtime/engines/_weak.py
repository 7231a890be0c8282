# SPDX-License-Identifier: Apache-2.0
"""Holds a weakly typed network to the types it declares: TensorRT 8.6, and DLAs before 11.

TensorRT is told the precision every layer computes in and the type of what it answers, with the
flag OBEY_PRECISION_CONSTRAINTS. A network in FLOAT alone needs none of it, since no flag lets
TensorRT use anything smaller. One in FLOAT and INT8 needs none either: TensorRT computes in INT8
what quantizing and dequantizing layers say, and nothing else; ``_widened.py`` is for HALF beside.

Sources: ``NvInfer.h`` 8.6, ``ILayer::setPrecision``, ``ILayer::setOutputType`` (not for the indices
of top-k, nor for what computes shapes).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trtpack_runtime.network import Constant, Layer, Network

if TYPE_CHECKING:
    from ._emit import Emitter

_FLOATS = ("FLOAT", "HALF", "BF16")
_BY_THEMSELVES = frozenset({"cast", "quantize", "dequantize", "nms"})
"""Kinds whose types follow from what they are told; 8.6 builds no NMS that is told a precision."""
_MOVES = frozenset({"shuffle", "slice", "concatenation", "gather", "scatter", "identity"})
"""Kinds that compute nothing: 8.6 moves FLOAT in HALF where it is not told FLOAT (measured)."""
_UNTOLD = "select"
"""A kind that computes nothing, and that 8.6 rounds where it is told FLOAT (measured)."""
_BEHIND_CASTS = frozenset({"select", "reduce", "softmax"})
"""Kinds that 8.6 rounds in FLOAT where they read what was HALF, unless the cast is told (measured).
"""
_ROUNDED = frozenset({"einsum", "grid_sample"})
"""Kinds that 8.6 computes in HALF at times, whatever it is told (measured)."""


def is_mixed(network: Network) -> bool:
    """Whether TensorRT is allowed anything but FLOAT, so has to be held.

    Numbers with scales are where quantizing and dequantizing layers say they are.
    """
    return not network.every_dtype().isdisjoint({"HALF", "BF16"})


def rounded(network: Network) -> Iterator[Layer]:
    """The layers in FLOAT that TensorRT 8.6 rounds to HALF whatever it is told (measured).

    They are some kinds, and those that own regions, since nothing within is held to its type. A
    network without HALF has none.
    """
    if "HALF" not in network.every_dtype():
        return
    for layer in network.layers:
        types = {dtype for region in layer.regions.values() for dtype in region.every_dtype()}
        if layer.kind in _ROUNDED:
            types.update(network.tensors[name].dtype for name in layer.outputs)
        if "FLOAT" in types:
            yield layer


def casts_read_in_float(network: Network) -> frozenset[str]:
    """The casts to FLOAT that layers of ``_BEHIND_CASTS`` read, or what is computed of them."""
    made_by = {name: layer for layer in network.layers for name in layer.outputs}
    waiting = [name for name, layer in made_by.items() if layer.kind in _BEHIND_CASTS]
    seen, found = set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in made_by or network.tensors[name].dtype != "FLOAT":
            continue
        seen.add(name)
        layer = made_by[name]
        if layer.kind == "cast":
            found.add(layer.name)
        else:
            waiting += layer.operand_names()
    return frozenset(found)


def hold_types(
    emitter: Emitter, part: Any, layer: Layer, network: Network, told: frozenset[str]
) -> None:
    """Tells TensorRT the precision and the output types of one layer; ``told`` are casts."""
    if layer.name in told:
        part.precision = emitter.dtype("FLOAT")
        part.set_output_type(0, emitter.dtype("FLOAT"))
        return
    if layer.kind in _BY_THEMSELVES or layer.regions:
        return
    precision = _precision(layer, network)
    if precision is not None and _is_told(layer.kind, precision):
        part.precision = emitter.dtype(precision)
    for index, name in enumerate(layer.outputs):
        declared = network.tensors[name].dtype
        if declared in _FLOATS:
            part.set_output_type(index, emitter.dtype(declared))


def hold_constant(emitter: Emitter, part: Any, constant: Constant, network: Network) -> None:
    """Tells TensorRT to keep a constant in FLOAT, which 8.6 stored in HALF at times (measured).

    Scales of quantization are weights to it, whatever is told.
    """
    if constant.dtype == "FLOAT" and constant.name not in network.constants_scaled():
        part.precision = emitter.dtype(constant.dtype)
        part.set_output_type(0, emitter.dtype(constant.dtype))


def _is_told(kind: str, precision: str) -> bool:
    return kind != _UNTOLD and (kind not in _MOVES or precision == "FLOAT")


def _precision(layer: Layer, network: Network) -> str | None:
    """The type a layer computes in: its first floating-point operand's, else its output's."""
    for name in (*layer.operand_names(), *layer.outputs):
        dtype = network.tensor(name).dtype
        if dtype in _FLOATS:
            return dtype
    return None
