# SPDX-License-Identifier: Apache-2.0
"""Joins arithmetic with Python numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .graph import forward, insert
from .match import SUMS, calls, number, only_user, plain_sum, product

aten = torch.ops.aten

_SCALED = (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar)


def fold_scalars(graph: fx.Graph) -> int:
    """Write ``x * a * b / c`` as one product, and drop ``x * 1``, ``x / 1`` and ``x + 0``.

    Needs:   nothing.
    Keeps:   integers, intermediate results that others read, chains in half precision (each step
             rounds there), and numbers that a chain would carry out of float32's range.
    Returns: how many operators it saved; the runner erases the dead nodes.
    """
    saved = 0
    for node in reversed(list(graph.nodes)):
        if node.op != "call_function" or not node.users or not _is_float(node):
            continue
        if calls(node, SUMS):
            saved += _drop_zero(node)
        elif calls(node, _SCALED) and number(node.args[1]) is not None:
            saved += _drop_one(node) or _join(graph, node)
    return saved


def _drop_zero(node: fx.Node) -> int:
    operands = plain_sum(node)
    return _replace(node, operands[0]) if operands and number(operands[1]) == 0 else 0


def _drop_one(node: fx.Node) -> int:
    return _replace(node, node.args[0]) if number(node.args[1]) == 1 else 0


def _join(graph: fx.Graph, node: fx.Node) -> int:
    below = node.args[0]
    if node.meta["val"].dtype != torch.float32 or not calls(below, _SCALED):
        return 0
    assert isinstance(below, fx.Node)
    if only_user(below) is None or number(below.args[1]) is None or not _is_float(below):
        return 0
    whole = product(node)
    if len(whole.nodes) != 1 or not 1e-30 < abs(whole.number) < 1e30:
        return 0
    with graph.inserting_before(node):
        made = insert(graph, node, aten.mul.Tensor, whole.nodes[0], whole.number)
    if made.meta["val"].dtype != node.meta["val"].dtype:
        graph.erase_node(made)
        return 0
    node.replace_all_uses_with(made)
    return 1


def _replace(node: fx.Node, source: Any) -> int:
    before, after = source.meta["val"], node.meta["val"]
    changes = before.dtype != after.dtype or before.dim() != after.dim()
    return 0 if changes else forward(node, source)


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()
