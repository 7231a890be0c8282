# SPDX-License-Identifier: Apache-2.0
"""What an ``add_*`` call makes, read back as a row of the portable network.

Reading back is the other half of ``engines/_layers.py``, written from TensorRT's documentation: it
sees only what a real release would have been told. Types and shapes follow from that by ``infer``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trtpack_runtime.dims import Dim
from trtpack_runtime.network import Tensor

Read = tuple[dict[str, Any], dict[str, Any]]
"""Operands and attributes, as ``infer`` takes them."""


@dataclass(frozen=True)
class Row:
    """What one ``add_*`` makes: ``inputs`` and ``properties`` are its parameters' names."""

    kind: str
    layer: str
    type: str
    inputs: tuple[str, ...]
    read: Callable[[Any], Read]
    properties: Mapping[str, str] = field(default_factory=dict)
    enums: Mapping[str, str] = field(default_factory=dict)
    outputs: int = 1


class Rows(dict[str, Row]):
    """Rows by the ``add_*`` that makes them."""

    def row(
        self,
        method: str,
        layer: str,
        type: str,
        inputs: str,
        properties: str = "",
        *,
        kind: str = "",
        outputs: int = 1,
        **enums: str,
    ) -> Callable[[Callable[[Any], Read]], Callable[[Any], Read]]:
        """Registers a reader; ``properties`` are ``parameter`` or ``parameter:property``."""
        named = dict((item.split(":") * 2)[:2] for item in properties.split())

        def register(read: Callable[[Any], Read]) -> Callable[[Any], Read]:
            self[method] = Row(
                kind or method.removeprefix("add_"),
                layer,
                type,
                tuple(inputs.split()),
                read,
                named,
                {name.rstrip("_"): enum for name, enum in enums.items()},
                outputs,
            )
            return read

        return register


def axes_of(mask: int) -> tuple[int, ...]:
    """A bit mask of axes."""
    return tuple(axis for axis in range(mask.bit_length()) if mask >> axis & 1)


def declared(tensor: Any) -> Tensor:
    return Tensor(tensor.name, tensor.dtype.name, tensor._dims())


def input_of(layer: Any, index: int = 0) -> Tensor:
    return declared(layer._inputs[index])


def optional(layer: Any, names: Sequence[str], attributes: dict[str, Any]) -> dict[str, Any]:
    """With the properties somebody has set."""
    return attributes | {n: _plain(layer._value(n)) for n in names if layer._is_set(n)}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def sizes_of(layer: Any, index: int, given: Any, method: str) -> tuple[Dim, ...]:
    """Sizes a shape tensor gives, else the ones that were given as numbers."""
    tensor = layer._inputs[index] if index < len(layer._inputs) else None
    if tensor is None:
        return tuple(given)
    value = tensor._sizes()
    if value is None:
        raise ValueError(f"{method}: input {index} is no shape tensor")
    return tuple(value)
