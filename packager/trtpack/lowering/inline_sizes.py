# SPDX-License-Identifier: Apache-2.0
"""Writes sizes as expressions where they are used, instead of as nodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

SIZES = (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool)


def inline_sizes(graph: fx.Graph) -> int:
    """Replace every use of a size node (``sym_size``, arithmetic on sizes) by its ``SymInt``.

    Sizes are expressions over dims, not values that flow: a size node between two tensor
    operators would cut the graph there. The graph can no longer be executed by itself.

    Needs:   ``meta["val"]`` on every node.
    Keeps:   sizes that only the data tells (of ``unique``, say, or from ``item()``).
    Returns: how many size nodes it replaced.
    """
    inlined = 0
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.meta.get("val"), SIZES):
            continue
        value = node.meta["val"]
        if from_data(value):
            continue
        for user in list(node.users):
            _replace_argument(user, node, value)
        inlined += 1
    return inlined


def _replace_argument(user: fx.Node, node: fx.Node, value: Any) -> None:
    def replaced(argument: fx.Node) -> Any:
        return value if argument is node else argument

    user.args = fx.map_arg(user.args, replaced)
    user.kwargs = fx.map_arg(user.kwargs, replaced)


def from_data(value: object) -> bool:
    """Whether a size is known only once the data is."""
    expression = getattr(getattr(value, "node", None), "expr", None)
    return expression is not None and any(
        str(symbol).startswith("u") for symbol in expression.free_symbols
    )
