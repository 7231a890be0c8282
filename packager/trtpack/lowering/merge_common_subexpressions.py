# SPDX-License-Identifier: Apache-2.0
"""Computes what is written twice once."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload


def merge_common_subexpressions(graph: fx.Graph) -> int:
    """Replace a call by an earlier one of the same operator with the same arguments.

    Needs:   a functional graph.
    Keeps:   random and mutating operators, those outside ATen, and calls the graph answers (two
             outputs of a model are two tensors).
    Returns: how many it replaced.
    """
    known: dict[Any, fx.Node] = {}
    merged = 0
    for node in list(graph.nodes):
        if not _is_pure(node) or any(user.op == "output" for user in node.users):
            continue
        key = (node.target, _frozen(node.args), _frozen(tuple(sorted(node.kwargs.items()))))
        first = known.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)
            merged += 1
    return merged


def _is_pure(node: fx.Node) -> bool:
    if node.op == "get_attr":
        return isinstance(node.meta.get("val"), torch.Tensor)
    if node.op != "call_function" or node.target is operator.getitem:
        return node.op == "call_function"
    op = node.target
    return (
        isinstance(op, OpOverload)
        and op.namespace == "aten"
        and torch.Tag.nondeterministic_seeded not in op.tags
        and not op._schema.is_mutable
    )


def _frozen(value: Any) -> Any:
    """Arguments as a key: equal numbers of other types differ, sizes go by their expressions."""
    if isinstance(value, list | tuple):
        return tuple(_frozen(v) for v in value)
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return ("size", value.node.expr)
    if isinstance(value, fx.Node) and value.op == "get_attr":
        return ("constant", str(value.target))
    return (type(value), repr(value) if isinstance(value, float) else value)
