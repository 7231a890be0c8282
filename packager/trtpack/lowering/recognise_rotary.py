# SPDX-License-Identifier: Apache-2.0
"""Finds rotary position embeddings written out by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from trtpack.rotary_embedding import ROTARY

from .graph import insert
from .match import calls, only_user, plain_sum
from .pairs import halves_of, joined, part, repeated
from .sizes import sizes

aten = torch.ops.aten

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def recognise_rotary(graph: fx.Graph) -> int:
    """Replace turned pairs of elements by ``trtpack.rotary_embedding``.

    The pairs are halves or neighbours. They may be turned one by one, ``first * cos - second *
    sin`` and ``second * cos + first * sin``, or at once: ``x * cos + rotated(x) * sin``, or as
    complex numbers times a table.

    Needs:   a last dim of known, even size.
    Keeps:   cos and sin that are not seen to be the same for both of a pair, products that others
             read, and what computes in several types.
    Returns: how many it replaced; the runner erases the dead nodes.
    """
    found = 0
    for node in list(graph.nodes):
        parts = _one_by_one(node) or _at_once(graph, node) or _complex(graph, node)
        if parts is None or not _fits(node, *parts[:3]):
            continue
        with graph.inserting_before(node):
            made = insert(graph, node, ROTARY, *parts)
        node.replace_all_uses_with(made)
        found += 1
    return found


_Parts = tuple[fx.Node, fx.Node, fx.Node, bool]


def _fits(node: fx.Node, *values: fx.Node) -> bool:
    wanted = node.meta["val"].dtype
    width = values[0].meta["val"].shape[-1]
    return (
        wanted in _FLOATS
        and all(value.meta["val"].dtype == wanted for value in values)
        and isinstance(width, int)
        and all(value.meta["val"].shape[-1] * 2 == width for value in values[1:])
        and values[0].meta["val"].dim() >= max(value.meta["val"].dim() for value in values[1:])
    )


def _one_by_one(node: fx.Node) -> _Parts | None:
    """Of the two turned elements of every pair, joined."""
    whole = joined(node)
    if whole is None or not calls(whole.first, (aten.sub.Tensor,)) or len(whole.first.args) > 2:
        return None
    minuend, subtrahend = (_factors(operand) for operand in whole.first.args)
    summands = [_factors(operand) for operand in plain_sum(whole.second) or ()]
    if minuend is None or subtrahend is None or len(summands) != 2 or None in summands:
        return None
    for first, cos in (minuend, minuend[::-1]):
        for second, sin in (subtrahend, subtrahend[::-1]):
            x = halves_of(first, second, interleaved=whole.interleaved)
            wanted = [{second, cos}, {first, sin}]
            if x is not None and [set(s) for s in summands] in (wanted, wanted[::-1]):  # type: ignore[arg-type]  # none is None
                return x, cos, sin, whole.interleaved
    return None


def _at_once(graph: fx.Graph, node: fx.Node) -> _Parts | None:
    """Of ``x * cos + rotated(x) * sin``."""
    products = [_factors(operand) for operand in plain_sum(node) or ()]
    if len(products) != 2 or None in products:
        return None
    for still, turned in (products, products[::-1]):
        for x, cos in (still, still[::-1]):  # type: ignore[misc,index]  # not None
            for rotated, sin in (turned, turned[::-1]):  # type: ignore[misc,index]  # not None
                interleaved = _rotates(rotated, x)
                if interleaved is None:
                    continue
                if all(repeated(angle, interleaved=interleaved) for angle in (cos, sin)):
                    with graph.inserting_before(node):
                        cos, sin = (
                            part(graph, angle, interleaved=interleaved) for angle in (cos, sin)
                        )
                    return x, cos, sin, interleaved
    return None


def _rotates(node: fx.Node, x: fx.Node) -> bool | None:
    """Whether the pairs of which ``node`` has (-second, first) are neighbours; None for others."""
    whole = joined(node)
    if whole is None or not calls(whole.first, (aten.neg.default,)):
        return None
    second = whole.first.args[0]
    found = halves_of(whole.second, second, interleaved=whole.interleaved)
    return whole.interleaved if found is x else None


def _complex(graph: fx.Graph, node: fx.Node) -> _Parts | None:
    """Of neighbours seen as complex numbers, times numbers that are given."""
    seen = node.args[0] if calls(node, (aten.reshape.default,)) else None
    product = seen.args[0] if calls(seen, (aten.view_as_real.default,)) else None  # type: ignore[union-attr]  # only nodes are calls
    factors = _factors(product)
    for numbers, angle in (factors, factors[::-1]) if factors else ():
        pairs = numbers.args[0] if calls(numbers, (aten.view_as_complex.default,)) else None
        x = pairs.args[0] if calls(pairs, (aten.reshape.default,)) else None  # type: ignore[union-attr]  # only nodes are calls
        if not isinstance(x, fx.Node) or not _same_shape(x, node):
            continue
        if pairs.meta["val"].dim() != x.meta["val"].dim() + 1:  # type: ignore[union-attr]  # x is its argument
            continue
        with graph.inserting_before(node):
            real = insert(graph, node, aten.view_as_real.default, angle)
            cos, sin = (insert(graph, node, aten.select.int, real, -1, i) for i in (0, 1))
        return x, cos, sin, True
    return None


def _same_shape(a: fx.Node, b: fx.Node) -> bool:
    return sizes(a.meta["val"].shape) == sizes(b.meta["val"].shape)


def _factors(node: Any) -> tuple[fx.Node, fx.Node] | None:
    """Both factors of a product that one node reads."""
    if not calls(node, (aten.mul.Tensor,)) or only_user(node) is None:
        return None
    first, second = node.args
    return (first, second) if isinstance(second, fx.Node) else None
