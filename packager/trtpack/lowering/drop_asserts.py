# SPDX-License-Identifier: Apache-2.0
"""Removes runtime checks that ``torch.export`` leaves in the graph."""

from __future__ import annotations

import torch
from torch import fx

aten = torch.ops.aten

_ASSERTS = (
    "_assert_tensor_metadata",
    "_assert_async",
    "_assert_scalar",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
)


def drop_asserts(graph: fx.Graph) -> int:
    """Erase checks of types, sizes and values.

    Needs:   nothing.
    Keeps:   everything with a result that is used.
    Returns: how many it erased.
    """
    dropped = 0
    for name in _ASSERTS:
        packet = getattr(aten, name)
        for overload in packet.overloads():
            for node in graph.find_nodes(op="call_function", target=getattr(packet, overload)):
                if not node.users:
                    graph.erase_node(node)
                    dropped += 1
    for node in graph.find_nodes(op="call_function", target=torch._check):
        graph.erase_node(node)
        dropped += 1
    return dropped
