# SPDX-License-Identifier: Apache-2.0
"""Finds attention written out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from .graph import insert
from .match import calls, number, only_user, plain_sum, product, source
from .sizes import sizes

aten = torch.ops.aten

_MATRIX_PRODUCTS = (aten.matmul.default, aten.bmm.default)
_SOFTMAX = (aten._softmax.default, aten.softmax.int)
_HIDDEN = -1e9
"""What is written over a hidden score is at most this; above it the score itself would count."""


@dataclass(frozen=True)
class _Scores:
    query: fx.Node
    key: fx.Node
    scale: float
    mask: fx.Node | None = None
    hidden: tuple[fx.Node, float] | None = None


def recognise_attention(graph: fx.Graph) -> int:
    """Replace ``softmax(q @ k.T * scale + mask) @ v`` by ``scaled_dot_product_attention``.

    The scale may be a factor or divisor of the scores; the mask is added, or written over scores
    with ``masked_fill``, or absent.

    Needs:   no dropout: ``drop_no_ops`` has run.
    Keeps:   products whose scores or shares others read, softmax along another dim, and fills
             that leave a hidden score a chance.
    Returns: how many it replaced; the runner erases the dead nodes.
    """
    found = 0
    for node in list(graph.nodes):
        top = _product_with_values(node)
        if top is None:
            continue
        scores = _scores(node.args[0])
        if scores is None or not _fits(scores, top):
            continue
        with graph.inserting_before(top):
            made = _attention(graph, top, scores)
        top.replace_all_uses_with(made)
        found += 1
    return found


def _product_with_values(node: fx.Node) -> fx.Node | None:
    """What alone multiplies the values by the shares, where ``node`` computes shares."""
    top = only_user(node) if calls(node, _SOFTMAX) and _along_last(node) else None
    return top if calls(top, _MATRIX_PRODUCTS) and top and top.args[0] is node else None


def _along_last(node: fx.Node) -> bool:
    value = node.meta["val"]
    before = source(node).meta["val"]
    return bool(node.args[1] in (-1, value.dim() - 1) and value.dtype == before.dtype)


def _scores(node: Any) -> _Scores | None:
    """The parts of masked and scaled scores, each read by nothing else."""
    if not isinstance(node, fx.Node) or only_user(node) is None:
        return None
    if calls(node, (aten.masked_fill.Scalar, aten.masked_fill.Tensor)):
        below, mask, fill = node.args
        value = number(fill)
        if not isinstance(mask, fx.Node) or value is None or value > _HIDDEN:
            return None
        found = _products(below)
        return found and _Scores(found.query, found.key, found.scale, hidden=(mask, value))
    operands = plain_sum(node)
    for below, mask in (operands, operands[::-1]) if operands else ():
        found = _products(below)
        if found is not None and isinstance(mask, fx.Node) and _same_type(mask, node):
            return _Scores(found.query, found.key, found.scale, mask)
    return _products(node)


def _products(node: Any) -> _Scores | None:
    if not isinstance(node, fx.Node) or only_user(node) is None:
        return None
    whole = product(node)
    if len(whole.nodes) != 1 or not calls(whole.nodes[0], _MATRIX_PRODUCTS):
        return None
    query, turned = whole.nodes[0].args
    key = _turned_back(turned)
    if key is None or only_user(whole.nodes[0]) is None:
        return None
    return _Scores(query, key, whole.number)  # type: ignore[arg-type]  # a product reads nodes


def _turned_back(node: Any) -> fx.Node | None:
    """``k`` of ``k`` with its last two dims swapped."""
    if not calls(node, (aten.permute.default, aten.transpose.int)):
        return None
    rank = node.meta["val"].dim()
    if node.target is aten.transpose.int:
        swapped = sorted(int(d) % rank for d in node.args[1:3]) == [rank - 2, rank - 1]
    else:
        order = [int(d) % rank for d in node.args[1]]
        swapped = order == [*range(rank - 2), rank - 1, rank - 2]
    return node.args[0] if swapped and rank > 2 else None


def _fits(scores: _Scores, top: fx.Node) -> bool:
    """Whether query, key and value have one rank and one batch, as attention wants them."""
    nodes = (scores.query, scores.key, top.args[1])
    values = [n.meta["val"] for n in nodes if isinstance(n, fx.Node)]
    if len(values) < 3 or not all(v.is_floating_point() for v in values):
        return False
    batches = {sizes(v.shape[:-2]) for v in values}
    mask = scores.mask or (scores.hidden[0] if scores.hidden else None)
    return (
        all(v.dim() == values[0].dim() and v.dtype == values[0].dtype for v in values)
        and len(batches) == 1
        and (mask is None or mask.meta["val"].dim() <= values[0].dim())
    )


def _same_type(a: fx.Node, b: fx.Node) -> bool:
    return bool(a.meta["val"].dtype == b.meta["val"].dtype)


def _attention(graph: fx.Graph, top: fx.Node, scores: _Scores) -> fx.Node:
    mask = scores.mask
    dtype = scores.query.meta["val"].dtype
    if scores.hidden is not None:
        hidden, value = scores.hidden
        mask = insert(graph, top, aten.where.Scalar, hidden, value, 0.0)
        if mask.meta["val"].dtype != dtype:
            mask = insert(graph, top, aten._to_copy.default, mask, dtype=dtype)
    return insert(
        graph,
        top,
        aten.scaled_dot_product_attention.default,
        scores.query,
        scores.key,
        top.args[1],
        mask,
        scale=scores.scale,
    )
