# SPDX-License-Identifier: Apache-2.0
"""``torch.cond`` in a captured graph: a node with two graphs of its own.

    cond = higher_order.cond(condition, true_graph_0, false_graph_0, (x, weight))

Everything that the graphs read is among the operands, weights too; sizes are symbols of the whole
graph, wherever they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

COND: Any = torch.ops.higher_order.cond


def branches(node: fx.Node) -> tuple[fx.GraphModule, ...]:
    """The graphs of a ``torch.cond``, first the one for true; none for any other node."""
    if node.target is not COND:
        return ()
    return tuple(graph_of(argument) for argument in node.args[1:3])


def every_branch(module: fx.GraphModule) -> Iterator[fx.GraphModule]:
    """All graphs that nodes of a graph have, and those that nodes of these have."""
    for node in module.graph.nodes:
        for branch in branches(node):
            yield branch
            yield from every_branch(branch)


def operands(node: fx.Node) -> list[Any]:
    """What the graphs of a ``torch.cond`` are called with, in the order of their placeholders."""
    given = node.args[3]
    assert isinstance(given, tuple | list)
    return list(given)


def is_graph(node: fx.Node) -> bool:
    """Whether a ``get_attr`` node reads a graph, not a tensor."""
    module = node.graph.owning_module
    if node.op != "get_attr" or module is None or "." in str(node.target):
        return False
    return isinstance(getattr(module, str(node.target), None), fx.GraphModule)


def graph_of(node: Any) -> fx.GraphModule:
    """The graph that a ``get_attr`` node reads."""
    found = getattr(node.graph.owning_module, str(node.target))
    assert isinstance(found, fx.GraphModule)
    return found
