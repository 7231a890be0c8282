# SPDX-License-Identifier: Apache-2.0
"""Removes operators that answer their input unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import fx

from .graph import forward
from .sizes import sizes

aten = torch.ops.aten


def drop_no_ops(graph: fx.Graph) -> int:
    """Replace ``y = op(x)`` by ``x`` where ``y`` has ``x``'s values, type and shape.

    Needs:   a functional graph without ``view`` (strides may change).
    Keeps:   a copy of a graph input that the graph answers, so that a caller never gets its own
             tensor back.
    Returns: how many it replaced; the runner erases the dead nodes.
    """
    dropped = 0
    for node in list(graph.nodes):
        rule = _RULES.get(node.target) if node.op == "call_function" else None
        if rule is None or not isinstance(node.args[0], fx.Node) or not rule(node):
            continue
        dropped += forward(node, node.args[0])
    return dropped


def _always(node: fx.Node) -> bool:
    return True


def _not_training(node: fx.Node) -> bool:
    return node.args[2] is False or bool(node.args[1] == 0)


def _same_type(node: fx.Node) -> bool:
    before, after = _value(node.args[0]), _value(node)
    return bool(before.dtype == after.dtype)


def _same_shape(node: fx.Node) -> bool:
    return sizes(_value(node.args[0]).shape) == sizes(_value(node).shape)


def _whole_slice(node: fx.Node) -> bool:
    step = node.args[4] if len(node.args) > 4 else 1
    return _same_shape(node) and bool(step == 1)


def _identity_order(node: fx.Node) -> bool:
    order = cast("Sequence[int]", node.args[1])
    rank = len(order)
    return [d % rank for d in order] == list(range(rank))


def _no_padding(node: fx.Node) -> bool:
    return all(isinstance(p, int) and p == 0 for p in cast("Sequence[object]", node.args[1]))


def _value(node: Any) -> Any:
    return node.meta["val"]


_RULES: dict[Any, Callable[[fx.Node], bool]] = {
    aten.alias.default: _always,
    aten.detach.default: _always,
    aten.clone.default: _always,
    aten.contiguous.default: _always,
    aten.lift_fresh_copy.default: _always,
    aten.dropout.default: _not_training,
    aten._to_copy.default: _same_type,
    aten.to.dtype: _same_type,
    aten.reshape.default: _same_shape,
    aten.expand.default: _same_shape,
    aten.slice.Tensor: _whole_slice,
    aten.permute.default: _identity_order,
    aten.constant_pad_nd.default: _no_padding,
}
