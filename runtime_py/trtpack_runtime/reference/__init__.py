# SPDX-License-Identifier: Apache-2.0
"""Evaluates a portable network with PyTorch: the oracle, and a fallback that runs anywhere.

Each layer computes what TensorRT documents for it, on whatever device the inputs are. Where PyTorch
and TensorRT differ (rounding up in pooling, resizing by scales, indices out of bounds, integer
division), TensorRT's way is taken.

Where TensorRT documents nothing and its kernels need not agree with each other, PyTorch's way is
taken, and no engine is held to it:

- NaN into RELU, CLIP, HARD_SIGMOID, MAX, MIN and POW, and into reductions by MAX and MIN. TensorRT
  8.6 answers 0 for RELU and HARD_SIGMOID, the upper bound for CLIP, and the number for a maximum or
  minimum, element by element only in one order of the two.
- The indices of infinities that are the worst of a top-k: TensorRT 8.6 answers -1 for -inf among
  the largest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch

from trtpack_runtime import dims
from trtpack_runtime.dtypes import by_torch
from trtpack_runtime.errors import InputMismatchError, InternalError
from trtpack_runtime.layers import KINDS
from trtpack_runtime.network import Layer, Network, Tensor

from . import by_data, indexing, linear, plugins, pointwise, quantization, regions, spatial
from .quantization import held, unpacked
from .registry import KERNELS

__all__ = ["evaluate"]

Values = MutableMapping[str, torch.Tensor]
_FAMILIES = (by_data, indexing, linear, plugins, pointwise, quantization, regions, spatial)
_WITHOUT_INPUT = frozenset({"fill"})


def evaluate(
    network: Network,
    constants: Mapping[str, torch.Tensor],
    inputs: Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
    *,
    keep: Values | None = None,
) -> list[torch.Tensor]:
    """The network's outputs, in order.

    Args:
        network: what to evaluate.
        constants: the weight store: stored name (``Constant.data``) -> tensor, on the inputs'
            device.
        inputs: in the network's order, or by name.
        keep: where given, every layer output is put into it; else each is freed after its last use.

    Raises:
        InputMismatchError: an input that is missing or has another type or shape than declared.
    """
    given = _bound(network.inputs, inputs)
    sizes = {name: tuple(value.shape) for name, value in given.items()}
    device = next((value.device for value in given.values()), torch.device("cpu"))
    values: dict[str, torch.Tensor] = dict(given)
    for name, constant in network.constants.items():
        stored = constants[constant.data]
        if constant.dtype == "INT4":
            stored = unpacked(stored, math.prod(constant.shape))
        values[name] = stored.reshape(constant.shape)
    return _run_layers(network, values, sizes, device, keep)


def _run_layers(
    network: Network,
    values: dict[str, torch.Tensor],
    sizes: dict[str, tuple[int, ...]],
    device: torch.device,
    keep: Values | None = None,
) -> list[torch.Tensor]:
    """Runs the layers on ``values``, which is used up; what regions make is not kept.

    ``sizes`` gains those that only the data tells.
    """
    last = _last_uses(network)
    for position, layer in enumerate(network.layers):
        for name, value in zip(layer.outputs, _run(layer, values, sizes, device), strict=True):
            if KINDS[layer.kind].sized_by_data:
                sizes[name] = tuple(value.shape)
            _hold_against(network.tensors[name], value, sizes, layer)
            values[name] = value
            if keep is not None:
                keep[name] = value
        for name in last.get(position, ()):
            del values[name]
    return [values[name] for name in network.outputs]


def _function(
    region: Network,
    values: Mapping[str, torch.Tensor],
    sizes: dict[str, tuple[int, ...]],
    device: torch.device,
) -> Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]:
    """A region as a function of its inputs."""
    read = {name: values[name] for name in region.constants_read()}
    names = [tensor.name for tensor in region.inputs]

    def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        given = dict(zip(names, inputs, strict=True))
        return _run_layers(region, read | given, sizes, device)

    return run


def _run(
    layer: Layer,
    values: Mapping[str, torch.Tensor],
    sizes: dict[str, tuple[int, ...]],
    device: torch.device,
) -> tuple[torch.Tensor, ...]:
    operands: dict[str, Any] = {
        name: values[v] if isinstance(v, str) else [values[i] for i in v]
        for name, v in layer.operands.items()
    }
    attributes = {name: _numbers(v, sizes) for name, v in layer.attributes.items()}
    if layer.kind in _WITHOUT_INPUT:
        attributes["device"] = device
    functions = {k: _function(r, values, sizes, device) for k, r in layer.regions.items()}
    answer = KERNELS[layer.kind](**operands, **attributes, **functions)
    return answer if isinstance(answer, tuple) else (answer,)


def _numbers(value: Any, sizes: Mapping[str, tuple[int, ...]]) -> Any:
    if isinstance(value, dims.Expr):
        return dims.evaluate(value, lambda tensor, axis: sizes[tensor][axis])
    if isinstance(value, tuple):
        return tuple(_numbers(item, sizes) for item in value)
    return value


def _bound(
    declared: Sequence[Tensor], inputs: Sequence[torch.Tensor] | Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    names = [tensor.name for tensor in declared]
    if not isinstance(inputs, Mapping):
        inputs = dict(zip(names, inputs, strict=True)) if len(inputs) == len(names) else {}
    if set(inputs) != set(names):
        raise InputMismatchError(
            f"wanted the inputs {', '.join(names)}, got {len(inputs)} of another set",
            hint="pass one tensor for each declared input",
        )
    for tensor in declared:
        value = inputs[tensor.name]
        fits = len(value.shape) == tensor.rank and all(
            not isinstance(want, int) or want == have
            for want, have in zip(tensor.shape, value.shape, strict=True)
        )
        if not fits or by_torch(value.dtype).name != tensor.dtype:
            raise InputMismatchError(
                f"wanted {tensor}, got {by_torch(value.dtype).name}{list(value.shape)}",
                hint="pass an input of the declared type and shape",
            )
    return dict(inputs)


def _last_uses(network: Network) -> dict[int, list[str]]:
    """Layer position -> the values nothing reads after it."""
    last = {
        name: position
        for position, layer in enumerate(network.layers)
        for name in (*layer.outputs, *layer.operand_names())
    }
    freed: dict[int, list[str]] = {}
    for name, position in last.items():
        if name not in network.outputs:
            freed.setdefault(position, []).append(name)
    return freed


def _hold_against(
    declared: Tensor, value: torch.Tensor, sizes: Mapping[str, tuple[int, ...]], layer: Layer
) -> None:
    wanted = _numbers(declared.shape, sizes)
    if by_torch(value.dtype).name != held(declared.dtype) or tuple(value.shape) != wanted:
        raise InternalError(
            f"{layer.kind} {layer.name} answered {by_torch(value.dtype).name}{list(value.shape)}, "
            f"declared {declared.dtype}{list(wanted)}"
        )
