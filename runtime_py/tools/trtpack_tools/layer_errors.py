# SPDX-License-Identifier: Apache-2.0
"""What is known of each layer's error, and which layers are to blame and worth a precision pin."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from trtpack_runtime.network import Layer, Network
from trtpack_runtime.smoke import Metrics

from .origins import Origin
from .precision_pins import why_not

_MOST_PINS = 8
_MOVES = frozenset(
    {
        "shuffle",
        "slice",
        "concatenation",
        "identity",
        "gather",
        "scatter",
        "select",
        "one_hot",
        "topk",
    }
)


@dataclass(frozen=True)
class LayerError:
    """A layer's output, compared. ``inherited`` is the largest error among the layer's operands,
    0 where it reads no other layer, None where one of them was not looked at."""

    tensor: str
    layer: str
    kind: str
    dtype: str
    origin: Origin
    metrics: Metrics
    error: float
    tolerance: float
    inherited: float | None = None

    @property
    def departs(self) -> bool:
        """Whether the error is more than is tolerated."""
        return not self.error <= self.tolerance

    @property
    def begins(self) -> bool:
        """Whether it departs while what it computes with does not."""
        return self.departs and self.inherited is not None and self.inherited <= self.tolerance

    @property
    def gradual(self) -> bool:
        """Whether most of its error comes from its operands."""
        return self.inherited is not None and self.inherited > self.error / 2

    @property
    def added(self) -> float:
        """The part of its error that is the layer's own; 0 where that is not known."""
        if self.inherited is None or not self.error > self.inherited:
            return 0.0
        return math.sqrt(self.error**2 - self.inherited**2)

    def to_json(self) -> dict[str, Any]:
        """Plain values; figures that are not finite as strings."""
        return {
            "tensor": self.tensor,
            "layer": self.layer,
            "kind": self.kind,
            "dtype": self.dtype,
            "origin": self.origin.to_json(),
            "error": _plain(self.error),
            "rel_l2": _plain(self.metrics.rel_l2),
            "cosine": _plain(self.metrics.cosine),
            "max_abs": _plain(self.metrics.max_abs),
            "differing": self.metrics.differing,
            "elements": self.metrics.elements,
            "tolerance": self.tolerance,
            "inherited": None if self.inherited is None else _plain(self.inherited),
            "added": _plain(self.added),
            "departs": self.departs,
        }


@dataclass(frozen=True)
class AccuracyReport:
    """The layers that were looked at, in the network's order.

    ``first`` is the first that departs while its operands do not. ``pins`` are layers whose
    computing in FLOAT should help: those where an error begins, with the readers of what is too
    large for its type, or, where errors only add up, those that add most. ``unseen`` are the
    tensors that could not be looked at, ``chunks`` says how often something was run.
    """

    layers: tuple[LayerError, ...]
    first: LayerError | None
    pins: tuple[str, ...]
    unseen: tuple[str, ...]
    chunks: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "first": None if self.first is None else self.first.to_json(),
            "pins": list(self.pins),
            "unseen": list(self.unseen),
            "chunks": self.chunks,
            "layers": [layer.to_json() for layer in self.layers],
        }


def guilty_layers(network: Network, layers: Sequence[LayerError]) -> list[str]:
    """The layers that are to blame for what departs, by name."""
    beginning = [found for found in layers if found.begins]
    sudden = [found for found in beginning if not found.gradual]
    if sudden or not beginning:
        return list(dict.fromkeys(found.layer for found in sudden))
    rounding = {layer.name for layer in network.layers if _rounds(layer)}
    before = [f for f in layers[: layers.index(beginning[0]) + 1] if f.layer in rounding]
    most = max((found.added for found in before), default=0.0)
    adding = [found for found in before if most and found.added >= most / 2]
    ranked = sorted(adding, key=lambda found: -found.added)[:_MOST_PINS]
    return list(dict.fromkeys(found.layer for found in ranked))


def _rounds(layer: Layer) -> bool:
    """Whether a layer computes new numbers, not only moves or chooses among those it has."""
    chooses = layer.attributes.get("type") in ("RELU", "CLIP", "MAX")
    return layer.kind not in _MOVES and not chooses


def with_consumers(
    network: Network, guilty: Sequence[str], overflowing: Collection[str]
) -> list[str]:
    """The guilty layers that can be pinned, and, where what they answer does not fit its type, all
    that read it: it may not be cast back in between."""
    known = {layer.name: layer for layer in network.layers}
    readers: dict[str, list[str]] = {}
    for layer in network.layers:
        for name in layer.operand_names():
            readers.setdefault(name, []).append(layer.name)
    found: dict[str, None] = {}
    waiting = list(guilty)
    while waiting:
        layer = known[waiting.pop(0)]
        if layer.name in found or why_not(network, layer) is not None:
            continue
        found[layer.name] = None
        for output in layer.outputs:
            if output in overflowing:
                waiting += readers.get(output, [])
    return list(found)


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)
