# SPDX-License-Identifier: Apache-2.0
"""Makes one product of several linear layers that share an input."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from trtpack.capture import constant_of

from .graph import insert

aten = torch.ops.aten


def merge_projections(graph: fx.Graph) -> int:
    """Replace ``linear(x, q)``, ``linear(x, k)``, ``linear(x, v)`` by one layer and a split.

    The joined weights are written as ``cat`` over parameters, which ``fold_constants`` evaluates.

    Needs:   weights that are constants, each read by one layer only.
    Keeps:   layers of other types, layers of which only some have a bias, and a layer that reads
             the input later than another one's result.
    Returns: how many layers it merged.
    """
    readers: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.find_nodes(op="call_function", target=aten.linear.default):
        if isinstance(node.args[0], fx.Node) and _is_constant(node):
            readers.setdefault(node.args[0], []).append(node)
    merged = 0
    for source, layers in readers.items():
        if len(layers) > 1 and _alike(layers):
            _merge(graph, source, layers)
            merged += len(layers)
    return merged


def _is_constant(node: fx.Node) -> bool:
    parameters = [n for n in node.args[1:] if n is not None]
    return all(constant_of(n) is not None and len(n.users) == 1 for n in parameters)  # type: ignore[union-attr]  # constants are nodes


def _bias(node: fx.Node) -> Any:
    return node.args[2] if len(node.args) > 2 else None


def _alike(layers: list[fx.Node]) -> bool:
    biased = {_bias(layer) is not None for layer in layers}
    types = {layer.meta["val"].dtype for layer in layers}
    return len(biased) == 1 and len(types) == 1


def _merge(graph: fx.Graph, source: fx.Node, layers: list[fx.Node]) -> None:
    first = layers[0]
    widths = [layer.meta["val"].shape[-1] for layer in layers]
    with graph.inserting_before(first):
        weights = [_again(graph, layer.args[1]) for layer in layers]
        biases = [_again(graph, _bias(layer)) for layer in layers if _bias(layer) is not None]
        arguments = [_joined(graph, first, weights, "weight")]
        if biases:
            arguments.append(_joined(graph, first, biases, "bias"))
        whole = insert(graph, first, aten.linear.default, source, *arguments)
        last, end, parts = whole.meta["val"].dim() - 1, 0, []
        for layer, width in zip(layers, widths, strict=True):
            start, end = end, end + width
            parts.append(insert(graph, layer, aten.slice.Tensor, whole, last, start, end))
    for layer, part in zip(layers, parts, strict=True):
        layer.replace_all_uses_with(part)
        graph.erase_node(layer)


def _again(graph: fx.Graph, constant: Any) -> fx.Node:
    """The same constant, read where the merged layer stands."""
    node = graph.get_attr(str(constant.target))
    node.meta = dict(constant.meta)
    return node


def _joined(graph: fx.Graph, like: fx.Node, parts: list[fx.Node], use: str) -> fx.Node:
    node = insert(graph, like, aten.cat.default, parts)
    node.meta["constant_use"] = f"{use}_merged"
    node.meta["constant_owner"] = str(parts[0].target).removesuffix(f".{use}")
    return node
