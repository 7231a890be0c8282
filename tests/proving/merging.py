# SPDX-License-Identifier: Apache-2.0
"""Several networks as one, side by side: nothing of one touches another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtpack_runtime import dims
from trtpack_runtime.network import Constant, Layer, Network, Profile, Tensor


def merge(networks: Mapping[str, Network]) -> Network:
    """One network of all; every name in it begins with its network's key and a dot.

    The largest profile of any network decides how many the whole has; a network with one profile
    has it in each.
    """
    parts = [prefixed(network, f"{key}.") for key, network in networks.items()]
    count = max((len(part.profiles) for part in parts), default=0)
    return Network(
        tuple(tensor for part in parts for tensor in part.inputs),
        tuple(name for part in parts for name in part.outputs),
        {name: constant for part in parts for name, constant in part.constants.items()},
        tuple(layer for part in parts for layer in part.layers),
        {name: tensor for part in parts for name, tensor in part.tensors.items()},
        tuple(_together(parts, index) for index in range(count)),
    )


def prefixed(network: Network, prefix: str) -> Network:
    """The network with ``prefix`` before every name, stored ones and those in sizes too."""

    def tensor(t: Tensor) -> Tensor:
        return Tensor(prefix + t.name, t.dtype, _sizes(t.shape, prefix))

    def operand(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return prefix + value if isinstance(value, str) else tuple(prefix + v for v in value)

    return Network(
        tuple(tensor(t) for t in network.inputs),
        tuple(prefix + name for name in network.outputs),
        {
            prefix + name: Constant(prefix + c.name, c.dtype, c.shape, prefix + c.data)
            for name, c in network.constants.items()
        },
        tuple(
            Layer(
                layer.kind,
                prefix + layer.name,
                {name: operand(value) for name, value in layer.operands.items()},
                {name: _sizes(value, prefix) for name, value in layer.attributes.items()},
                tuple(prefix + name for name in layer.outputs),
                layer.origin,
                {name: prefixed(region, prefix) for name, region in layer.regions.items()},
            )
            for layer in network.layers
        ),
        {prefix + name: tensor(t) for name, t in network.tensors.items()},
        tuple(
            Profile({prefix + name: shapes for name, shapes in profile.shapes.items()})
            for profile in network.profiles
        ),
    )


def _sizes(value: Any, prefix: str) -> Any:
    if isinstance(value, dims.Expr):
        return dims.substitute(value, lambda name, axis: dims.dim(prefix + name, axis))
    if isinstance(value, tuple):
        return tuple(_sizes(item, prefix) for item in value)
    return value


def _together(parts: list[Network], index: int) -> Profile:
    dynamic = [part.profiles for part in parts if part.profiles]
    return Profile(
        {
            name: shapes
            for profiles in dynamic
            for name, shapes in profiles[min(index, len(profiles) - 1)].shapes.items()
        }
    )
