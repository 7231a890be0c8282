# SPDX-License-Identifier: Apache-2.0
"""Replaces ``view``, which demands certain strides, by ``reshape``, which does not."""

from __future__ import annotations

import torch
from torch import fx

aten = torch.ops.aten

_RELAXED = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
}


def relax_views(graph: fx.Graph) -> int:
    """Turn ``view`` and ``_unsafe_view`` into ``reshape``.

    Needs:   a functional graph: no view is written through.
    Keeps:   ``view.dtype``, which reinterprets bits.
    Returns: how many it turned.
    """
    relaxed = 0
    for strict, loose in _RELAXED.items():
        for node in graph.find_nodes(op="call_function", target=strict):
            node.target = loose
            relaxed += 1
    return relaxed
