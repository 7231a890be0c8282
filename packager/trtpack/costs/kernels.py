# SPDX-License-Identifier: Apache-2.0
"""How many kernels TensorRT takes for each node of a graph, counted in its converted network.

What TensorRT computes element by element becomes part of the kernel before it; a shape that alone
changes takes none. Where a node's element by element layers feed one of another kind they cannot
wait for it, and are a kernel of their own.

Source: TensorRT's documentation, "Types of Fusions" (pointwise and shuffle fusion, reductions with
what is around them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from trtpack_runtime.network import Layer

_ELEMENTWISE = frozenset(
    ("activation", "cast", "elementwise", "identity", "parametric_relu", "scale", "select", "unary")
)
_FREE = frozenset(("assertion", "constant", "fill", "shape"))


def kernels_of(layers: Iterable[Layer], node_of: Callable[[str], str]) -> dict[str, int]:
    """The kernels of each node that takes more than what is computed element by element;
    ``node_of`` tells the node of a layer by the layer's name."""
    by_node: dict[str, list[Layer]] = {}
    for layer in layers:
        by_node.setdefault(node_of(layer.name), []).append(layer)
    counts = {node: _count(own) for node, own in by_node.items()}
    return {node: count for node, count in counts.items() if count}


def _count(layers: list[Layer]) -> int:
    makers = {output: layer for layer in layers for output in layer.outputs}
    apart = [layer for layer in layers if _is_apart(layer)]
    reduces = any(layer.kind == "reduce" for layer in layers)
    fed = any(
        name in makers and makers[name].kind in _ELEMENTWISE
        for layer in apart
        for name in layer.operand_names()
    )
    return len(apart) + reduces + fed


def _is_apart(layer: Layer) -> bool:
    if layer.kind == "shuffle":
        orders = (layer.attributes.get(f"{which}_transpose") for which in ("first", "second"))
        return any(order is not None and list(order) != sorted(order) for order in orders)
    return layer.kind not in _ELEMENTWISE | _FREE and layer.kind != "reduce"
