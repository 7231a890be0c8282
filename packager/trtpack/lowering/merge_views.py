# SPDX-License-Identifier: Apache-2.0
"""Makes one operator of several that only rearrange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import fx

from .graph import forward
from .sizes import sizes

aten = torch.ops.aten

_RESHAPES = (
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.flatten.using_ints,
)


def merge_views(graph: fx.Graph) -> int:
    """Let a reshape of a reshape read the first one's input, and a permutation likewise.

    ``squeeze`` and ``unsqueeze`` count as reshapes. Two that cancel each other vanish.

    Needs:   a functional graph without ``view``.
    Keeps:   an operator between that others read; it only loses this reader.
    Returns: how many it merged; the runner erases the dead nodes.
    """
    merged = 0
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.args[:1], tuple) or not node.args:
            continue
        below = node.args[0]
        if not isinstance(below, fx.Node) or below.op != "call_function":
            continue
        if node.target in _RESHAPES and below.target in _RESHAPES:
            merged += _merge_reshapes(node, below)
        elif node.target is aten.permute.default and below.target is aten.permute.default:
            merged += _merge_permutes(node, below)
    return merged


def _merge_reshapes(node: fx.Node, below: fx.Node) -> int:
    source = below.args[0]
    assert isinstance(source, fx.Node)
    shape, before = node.meta["val"].shape, source.meta["val"].shape
    if sizes(shape) == sizes(before):
        return forward(node, source)
    node.target = aten.reshape.default
    node.args = (source, list(shape))
    node.kwargs = {}
    return 1


def _merge_permutes(node: fx.Node, below: fx.Node) -> int:
    source = below.args[0]
    assert isinstance(source, fx.Node)
    rank = node.meta["val"].dim()
    inner = [d % rank for d in cast("Sequence[int]", below.args[1])]
    order = [inner[d % rank] for d in cast("Sequence[int]", node.args[1])]
    if order == list(range(rank)):
        return forward(node, source)
    node.args = (source, order)
    return 1
