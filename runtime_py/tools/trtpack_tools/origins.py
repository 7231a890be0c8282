# SPDX-License-Identifier: Apache-2.0
"""Finds the layers of a network, and so the user's modules, behind TensorRT's names of layers.

TensorRT fuses layers and joins their names in its own ways: ``a + b``, ``PWN(PWN(a), b)``,
``{ForeignNode[a...b]}`` for everything between two layers, ``a_myl0_3`` for a part of one. What it
adds by itself, such as a copy of an input, belongs to no layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trtpack_runtime.network import Layer, Network

_RANGE = re.compile(r"\[([^\[\]]+?)\.\.\.([^\[\]]+?)\]")
_WORD = re.compile(r"[^\s,+()\[\]{}]+")
_PART = re.compile(r"_myl\d+_\d+$")
_PLACE = re.compile(r"(?P<module>.*?)\s*\((?P<source>[^()]*:\d+)\)")
_SOURCE = re.compile(r"\S+:\d+")
_SEPARATOR = "\x1e"
"""Between the metadata of fused layers."""


@dataclass(frozen=True)
class Origin:
    """A layer of the network: its name and kind, the module path and the source line it came from.

    ``module`` is empty for what the model's own ``forward`` does.
    """

    layer: str
    kind: str
    module: str
    source: str

    def __str__(self) -> str:
        return f"{self.module} ({self.source})" if self.module and self.source else (
            self.module or self.source
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "layer": self.layer,
            "kind": self.kind,
            "module": self.module,
            "source": self.source,
        }


def origin_of(layer: Layer) -> Origin:
    """Where a layer came from: what it says itself, else what its name says."""
    found = _PLACE.fullmatch(layer.origin)
    if found:
        return Origin(layer.name, layer.kind, found["module"], found["source"])
    if _SOURCE.fullmatch(layer.origin):
        return Origin(layer.name, layer.kind, "", layer.origin)
    module = layer.origin or layer.name.rpartition("/")[0]
    return Origin(layer.name, layer.kind, module, "")


class Origins:
    """The layers of one network, to be found again in an engine of it."""

    def __init__(self, network: Network) -> None:
        layers = tuple(network.every_layer())
        self._all = tuple(origin_of(layer) for layer in layers)
        self._at = {layer.name: place for place, layer in enumerate(layers)}
        self._by_text: dict[str, list[int]] = {}
        for place, layer in enumerate(layers):
            self._by_text.setdefault(layer.origin, []).append(place)

    def of(self, name: str, metadata: str = "") -> tuple[Origin, ...]:
        """The layers behind an engine's layer, in the network's order; none for TensorRT's own.

        ``metadata`` is what the engine tells of the layer besides; it is asked where the name says
        nothing.
        """
        places = set(self._ranges(name))
        places.update(self._words(_RANGE.sub(" ", name)))
        if not places:
            texts = (text.strip() for text in metadata.split(_SEPARATOR))
            places = {p for text in texts if text for p in self._by_text.get(text, ())}
        return tuple(self._all[place] for place in sorted(places))

    def _ranges(self, name: str) -> Iterable[int]:
        for first, last in _RANGE.findall(name):
            begin, end = self._words(first), self._words(last)
            if begin and end:
                yield from range(min(begin), max(end) + 1)
            else:
                yield from (*begin, *end)

    def _words(self, text: str) -> list[int]:
        words = (_PART.sub("", word) for word in _WORD.findall(text))
        return [self._at[word] for word in words if word in self._at]
