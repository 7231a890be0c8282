# SPDX-License-Identifier: Apache-2.0
"""Checks that a portable network is whole: what is read exists, what is declared follows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from trtpack_runtime import dims
from trtpack_runtime.dims import Dim, Expr
from trtpack_runtime.dtypes import DTYPES, NETWORK_DTYPES
from trtpack_runtime.errors import NetworkError
from trtpack_runtime.layers import KINDS, QUANTIZED
from trtpack_runtime.network import Constant, Layer, Network, Profile, Tensor

from .infer import infer

_HINT = "build the bundle again, and report the model if it stays"


def check_network(network: Network, store: Mapping[str, Any] | None = None) -> None:
    """Raises for the first thing that is wrong.

    Args:
        network: what to check.
        store: the weight store, stored name -> something with ``nbytes``; checked where given.

    Raises:
        NetworkError: the message names the layer and where in the model it came from.
    """
    known = _check_inputs(network.inputs)
    for constant in network.constants.values():
        _check_constant(constant, known, store)
        known[constant.name] = Tensor(constant.name, constant.dtype, constant.shape)
    sizes = {(t.name, axis) for t in network.inputs for axis in range(t.rank)}
    _check_layers(network, network.constants, known, sizes, set())
    _check_outputs(network)
    for index, profile in enumerate(network.profiles):
        _check_profile(profile, f"profile {index}", network.inputs)
    if not network.is_static and not network.profiles:
        raise _wrong("profiles", "a network with open sizes needs at least one")


def _check_inputs(inputs: Iterable[Tensor]) -> dict[str, Tensor]:
    known: dict[str, Tensor] = {}
    for tensor in inputs:
        where = f"input {tensor}"
        if tensor.name in known:
            raise _wrong(where, "another input has that name")
        if tensor.dtype not in NETWORK_DTYPES - {"INT4"}:
            raise _wrong(where, f"{tensor.dtype} is no type of a network")
        known[tensor.name] = tensor
    sizes = {(t.name, axis) for t in known.values() for axis in range(t.rank)}
    for tensor in known.values():
        _check_sizes(f"input {tensor}", tensor.shape, sizes)
    return known


def _check_constant(
    constant: Constant, known: Mapping[str, Tensor], store: Mapping[str, Any] | None
) -> None:
    where = f"constant {constant.name!r}"
    if constant.name in known:
        raise _wrong(where, "another value has that name")
    if constant.dtype not in NETWORK_DTYPES - {"UINT8"}:
        raise _wrong(where, f"TensorRT has no constants of type {constant.dtype}")
    if store is None:
        return
    if constant.data not in store:
        raise _wrong(where, f"the weight store has no {constant.data!r}")
    wanted = DTYPES[constant.dtype].nbytes(math.prod(constant.shape))
    if store[constant.data].nbytes != wanted:
        has = store[constant.data].nbytes
        raise _wrong(where, f"wanted {wanted} bytes stored as {constant.data!r}, got {has}")


def _check_layers(
    network: Network,
    constants: Mapping[str, Constant],
    known: dict[str, Tensor],
    sizes: set[tuple[str, int]],
    names: set[str],
) -> None:
    """Checks layers in order, their regions before them; ``known`` and ``names`` gain theirs."""
    for layer in network.layers:
        where = f"{layer.kind} {layer.name!r}" + f" ({layer.origin})" * bool(layer.origin)
        if layer.name in names:
            raise _wrong(where, "another layer has that name")
        names.add(layer.name)
        for name, region in layer.regions.items():
            _check_region(region, f"{where}, region {name}", constants, known, sizes, names)
        _check_layer(layer, where, network, constants, known, sizes)


def _check_region(
    region: Network,
    where: str,
    constants: Mapping[str, Constant],
    known: dict[str, Tensor],
    sizes: set[tuple[str, int]],
    names: set[str],
) -> None:
    """A region reads its inputs, what it makes, and the outer network's constants."""
    if any(KINDS[layer.kind].sized_by_data for layer in region.layers if layer.kind in KINDS):
        raise _wrong(where, "a size that only the data tells stays outside of regions")
    if region.constants or region.profiles:
        raise _wrong(where, "constants and profiles are those of the network around it")
    inside = {name: known[name] for name in constants}
    for tensor in region.inputs:
        if tensor.name in known or tensor.name in inside:
            raise _wrong(where, f"another value is called {tensor.name!r}")
        _check_sizes(f"{where}, input {tensor}", tensor.shape, sizes)
        inside[tensor.name] = tensor
    before = set(inside) | set(known)
    _check_layers(region, constants, inside, sizes, names)
    for name in region.outputs:
        if name not in region.tensors:
            raise _wrong(f"{where}, output {name!r}", "wanted the output of a layer")
    if twice := before.intersection(region.tensors):
        raise _wrong(where, f"another value is called {min(twice)!r}")


def _check_layer(
    layer: Layer,
    where: str,
    network: Network,
    constants: Mapping[str, Constant],
    known: dict[str, Tensor],
    sizes: set[tuple[str, int]],
) -> None:
    for name in layer.operand_names():
        if name not in known:
            raise _wrong(where, f"reads {name!r}, which nothing before it makes")
    operands = {
        name: known[value] if isinstance(value, str) else tuple(known[item] for item in value)
        for name, value in layer.operands.items()
    }
    try:
        results = infer(layer.kind, operands, layer.attributes, layer.regions)
    except NetworkError as error:
        raise NetworkError(f"{where}: {error}", hint=error.hint) from error
    _check_sizes(where, layer.attributes.values(), sizes)
    _check_weights(layer, where, constants)
    if len(results) != len(layer.outputs):
        raise _wrong(where, f"wanted {len(results)} outputs, got {len(layer.outputs)}")
    for name, (dtype, shape) in zip(layer.outputs, results, strict=True):
        if name in known:
            raise _wrong(where, f"another value is called {name!r}")
        if name not in network.tensors:
            raise _wrong(where, f"output {name!r} is not declared")
        declared, follows = network.tensors[name], Tensor(name, dtype, dims.owned(shape, name))
        if declared != follows:
            raise _wrong(where, f"declares {declared}, its operands give {follows}")
        known[name] = declared
        if KINDS[layer.kind].sized_by_data:
            sizes.update((name, axis) for axis in range(declared.rank))


def _check_weights(layer: Layer, where: str, constants: Mapping[str, Constant]) -> None:
    must = {operand.name for operand in KINDS[layer.kind].operands if operand.constant}
    for operand, value in layer.operands.items():
        if operand in must and value not in constants:
            raise _wrong(where, f"operand {operand} must be a constant, got {value!r}")
    if layer.kind != "dequantize":
        for name in layer.operand_names():
            if name in constants and constants[name].dtype in QUANTIZED:
                dtype = constants[name].dtype
                raise _wrong(where, f"reads the {dtype} constant {name!r}, only dequantize may")


def _check_outputs(network: Network) -> None:
    if not network.outputs:
        raise _wrong("outputs", "a network has at least one")
    for name in network.outputs:
        if name not in network.tensors:
            raise _wrong(f"output {name!r}", "wanted the output of a layer")
    if len(set(network.outputs)) != len(network.outputs):
        raise _wrong("outputs", f"wanted distinct ones, got {', '.join(network.outputs)}")


def _check_profile(profile: Profile, where: str, inputs: Iterable[Tensor]) -> None:
    shapes = dict(profile.shapes)
    for tensor in inputs:
        if tensor.name not in shapes:
            if tensor.is_static:
                shapes[tensor.name] = (_numbers(tensor.shape),) * 3
                continue
            raise _wrong(where, f"has no shapes for the input {tensor}")
        for low, high in zip(shapes[tensor.name], shapes[tensor.name][1:], strict=False):
            if len(low) != len(high) or any(a > b for a, b in zip(low, high, strict=True)):
                got = " ".join(str(list(shape)) for shape in shapes[tensor.name])
                raise _wrong(where, f"wanted min <= opt <= max for {tensor.name}, got {got}")
    unknown = set(profile.shapes) - {tensor.name for tensor in inputs}
    if unknown:
        raise _wrong(where, f"has shapes for {', '.join(sorted(unknown))}, which is no input")
    for which, name in enumerate(("min", "opt", "max")):
        at = {tensor: given[which] for tensor, given in shapes.items()}
        for tensor in inputs:
            if len(at[tensor.name]) != tensor.rank:
                raise _wrong(where, f"{name} of {tensor} has {len(at[tensor.name])} sizes")
        for tensor in inputs:
            wanted = _evaluated(tensor.shape, at)
            if wanted != at[tensor.name]:
                had = list(at[tensor.name])
                raise _wrong(where, f"{name} of {tensor} must be {list(wanted)}, got {had}")


def _evaluated(shape: tuple[Dim, ...], at: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(dims.evaluate(size, lambda name, axis: at[name][axis]) for size in shape)


def _check_sizes(where: str, values: Iterable[Any], sizes: set[tuple[str, int]]) -> None:
    for value in values:
        if isinstance(value, Expr):
            for tensor, axis in dims.atoms(value):
                if (tensor, axis) not in sizes:
                    raise _wrong(where, f"a size reads {tensor}.{axis}, which nothing before tells")
        elif isinstance(value, tuple):
            _check_sizes(where, value, sizes)


def _numbers(shape: tuple[Dim, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if isinstance(size, int))


def _wrong(where: str, problem: str) -> NetworkError:
    return NetworkError(f"{where}: {problem}", hint=_HINT)
