# SPDX-License-Identifier: Apache-2.0
"""What every emission into a double must show, whatever the release and the network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from tests.runtime.trt_double import controls, has
from trtpack_runtime.dims import Dim, evaluate
from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.engines._emit import emit
from trtpack_runtime.engines._widened import is_widened, widened
from trtpack_runtime.layers import ENUMS, KINDS
from trtpack_runtime.network import Network

UNREAD = {
    "activation": ("alpha", "beta"),
    "fill": ("alpha", "beta"),
    "gather": ("axis",),
    "scatter": ("axis",),
    "pooling_nd": ("average_count_excludes_padding",),
    "topk": ("indices_type",),
    "resize": ("cubic_coeff", "exclude_outside"),
    "normalization": ("num_groups",),
    "normalization_v2": ("num_groups",),
    "plugin": ("results", "reference"),
    "quantize": ("axis",),
    "dequantize": ("axis",),
    "scan": ("length", "axis", "reverse"),
}
"""Attributes that TensorRT is told only where they mean something, or as tensors."""


_BY_DATA = 5
"""What a size that only the data tells is taken as."""


def release_of(trt: Any) -> str:
    """``"8.6"`` of the double of 8.6."""
    return str(trt._release)


def zeros(network: Network) -> dict[str, bytes]:
    """Stored tensors for a network whose numbers do not matter."""
    return {
        constant.data: bytes(DTYPES[constant.dtype].nbytes(math.prod(constant.shape)))
        for constant in network.constants.values()
    }


def bytes_of(values: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The bytes of each tensor."""
    return {k: v.contiguous().reshape(-1).view(torch.uint8).numpy() for k, v in values.items()}


def missing(release: str, network: Network) -> str | None:
    """Why a release cannot have a network, as its refusal says it; None where it can."""
    for layer in network.every_layer():
        method = {"gather": "add_gather_v2"}.get(layer.kind, KINDS[layer.kind].method)
        if not has(release, f"INetworkDefinition.{method}"):
            return "no such layer"
        for name, spelled in KINDS[layer.kind].attributes.items():
            enum = spelled.removesuffix("?")
            if enum in ENUMS and name in layer.attributes:
                member = f"{enum}.{layer.attributes[name]}"
                if not has(release, member):
                    return f"no {member}"
    for dtype in network.every_dtype() - {"INT64"}:
        if not has(release, f"DataType.{dtype}") or (dtype == "FP8" and release == "8.6"):
            return f"no type {dtype}"
    return None


def emitted(trt: Any, network: Network, weights: Mapping[str, Any] | None = None) -> Any:
    """The network's definition in a double, held against the network in every respect."""
    weights = zeros(network) if weights is None else weights
    made = emit(trt, network, weights)
    definition, release = made.definition, release_of(trt)
    types = [network.tensors[name].dtype for name in network.outputs]
    assert [t.dtype.name for t in definition._outputs] == [_known(trt, dtype) for dtype in types]
    if not definition._strong and is_widened(network):
        network = widened(network, weights).network
    assert controls(trt).networks[-1] is definition
    _hold_creation(trt, definition, release)
    parts = {layer.name: layer for layer in definition._layers}
    assert len(parts) == len(definition._layers), "TensorRT wants every layer's name once"
    for layer in network.every_layer():
        part = parts[layer.name]
        instead = {"cast": "identity", "unary": "elementwise"} if release == "8.6" else {}
        assert part._row.kind in (layer.kind, instead.get(layer.kind))
        if has(release, f"{type(part).__name__}.metadata"):
            assert part.metadata == layer.origin
        if part._row.kind == layer.kind:
            _hold_attributes(layer.attributes, part)
    _hold_tensors(trt, network, definition)
    return made


def _hold_creation(trt: Any, definition: Any, release: str) -> None:
    """Explicit batch on 8.6, strong typing from 10.0, each by that release's own bit."""
    major = int(release.split(".")[0]) if release[0].isdigit() else 11
    bits = {8: {"EXPLICIT_BATCH": 0}, 10: {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}}
    wanted = bits.get(major, {"STRONGLY_TYPED": 0})
    assert definition._creation == sum(1 << bit for bit in wanted.values())
    assert definition._strong == (major >= 10)


def _hold_attributes(declared: Mapping[str, Any], part: Any) -> None:
    _, read = part._row.read(part)
    kind = part._row.kind
    for name, value in declared.items():
        if name in UNREAD.get(kind, ()) and (name not in read or kind == "plugin"):
            continue
        if name == "indices_type" or (kind == "gather" and declared["mode"] == "ND"):
            continue
        shaped = name in ("reshape_dims", "shape", "max_output_boxes_per_class")
        if shaped or (kind == "slice" and name in ("start", "stride")):
            continue  # sizes are compared as numbers, by the shapes they lead to
        have = read[name]
        if isinstance(value, str):
            narrow = {"INT64": "INT32"} if part._network._wide == "INT32" else {}
            assert have.replace(" ", "") == narrow.get(value, value).replace(" ", "")
        else:
            assert _plain(have) == _plain(value), (kind, name)


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _hold_tensors(trt: Any, network: Network, definition: Any) -> None:
    """Names, types and, at every profile's sizes, shapes are the declared ones."""
    made = {t.name: t for layer in definition._layers for t in layer._outputs}
    made |= {t.name: t for t in definition._inputs}
    declared = {t.name: t for t in (*network.inputs, *network.tensors.values())}
    for name in declared.keys() - {t.name for t in definition._outputs}:
        assert made[name].dtype.name == _known(trt, declared[name].dtype), name
    assert [t.name for t in definition._inputs] == [t.name for t in network.inputs]
    assert [t.name for t in definition._outputs] == list(network.outputs)
    if not definition._strong:
        for tensor in definition._outputs:
            assert "dtype" in tensor._values, f"{tensor.name} would be FLOAT"
    for sizes in _samples(network):
        _hold_shapes(network, made, sizes)


def _known(trt: Any, dtype: str) -> str:
    """A type by the name that a release has for it."""
    return "INT32" if dtype == "INT64" and not hasattr(trt.DataType, "INT64") else dtype


def _hold_shapes(
    network: Network, made: Mapping[str, Any], sizes: Mapping[str, tuple[int, ...]]
) -> None:
    known: dict[str, tuple[int, ...]] = dict(sizes)

    def lookup(name: str, axis: int) -> int:
        return known[name][axis]

    named = {
        str(size): known[tensor.name][axis]
        for tensor in network.inputs
        for axis, size in enumerate(tensor.shape)
    }
    for layer in network.layers:
        for name in layer.outputs:
            if KINDS[layer.kind].sized_by_data:
                known[name] = (_BY_DATA,) * network.tensors[name].rank
            wanted = tuple(evaluate(size, lookup) for size in network.tensors[name].shape)
            have = tuple(
                evaluate(size, lambda n, _: _BY_DATA if n.startswith("data of") else named[n])
                for size in made[name]._dims()
            )
            assert have == wanted, (name, network.tensors[name], made[name]._dims())
            known[name] = wanted


def _samples(network: Network) -> list[dict[str, tuple[int, ...]]]:
    """The inputs' shapes at the ends and the middle of every profile."""

    def shape(of: tuple[Dim, ...], name: str, ranges: Mapping[str, Any], end: int) -> Any:
        return tuple(ranges[name][end]) if name in ranges else of

    return [
        {t.name: shape(t.shape, t.name, profile, end) for t in network.inputs}
        for profile in [p.shapes for p in network.profiles] or [{}]
        for end in (0, 1, 2)
    ]
