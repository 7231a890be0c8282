# SPDX-License-Identifier: Apache-2.0
"""Finds GELU and SiLU written out by hand."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import fx

from .graph import insert
from .match import calls, is_near, only_user, plain_sum, power, product, source, sum_with

aten = torch.ops.aten


def recognise_gelu(graph: fx.Graph) -> int:
    """Replace ``x / 2 * (1 + erf(x / sqrt(2)))`` by ``gelu(x)``.

    Also ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))`` by the tanh form, and
    ``x * sigmoid(x)`` by ``silu(x)``; factors may stand in any order.

    Needs:   nothing.
    Keeps:   other constants, and products whose parts others read.
    Returns: how many it replaced; the runner erases the dead nodes.
    """
    found = 0
    for node in list(graph.nodes):
        if calls(node, (aten.erf.default,)):
            found += _replace_gelu(graph, node, _of_erf(node), "none")
        elif calls(node, (aten.tanh.default,)):
            found += _replace_gelu(graph, node, _of_tanh(node), "tanh")
        elif calls(node, (aten.sigmoid.default,)):
            found += _replace_silu(graph, node)
    return found


def _of_erf(node: fx.Node) -> fx.Node | None:
    """``x`` of ``erf(x / sqrt(2))``."""
    inner = product(source(node))
    if len(inner.nodes) == 1 and is_near(inner.number, math.sqrt(0.5)):
        return inner.nodes[0]
    return None


def _of_tanh(node: fx.Node) -> fx.Node | None:
    """``x`` of ``tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3))``."""
    inner = product(source(node))
    if len(inner.nodes) != 1 or not is_near(inner.number, math.sqrt(2 / math.pi)):
        return None
    operands = plain_sum(inner.nodes[0])
    for x, cubic in (operands, operands[::-1]) if operands else ():
        if not isinstance(cubic, fx.Node):
            continue
        scaled = product(cubic)
        if is_near(scaled.number, 0.044715) and _is_cube(scaled.nodes, x):
            return x  # type: ignore[no-any-return]  # a factor of the cube, a node
    return None


def _is_cube(factors: tuple[fx.Node, ...], x: object) -> bool:
    if len(factors) == 1:
        return power(factors[0], 3) is x
    if len(factors) == 2:  # x * x**2
        return any(power(a, 2) is x and b is x for a, b in (factors, factors[::-1]))
    return len(factors) == 3 and all(f is x for f in factors)


def _replace_gelu(
    graph: fx.Graph, node: fx.Node, x: fx.Node | None, approximate: Literal["none", "tanh"]
) -> int:
    above = only_user(node)
    if x is None or above is None or sum_with(above, 1.0) is None:
        return 0
    top = only_user(above)
    for _ in range(2):  # the half may be multiplied last
        if top is None:
            return 0
        whole = product(top)
        if whole.number == 0.5 and sorted(whole.nodes, key=str) == sorted((x, above), key=str):
            with graph.inserting_before(top):
                made = insert(graph, top, aten.gelu.default, x, approximate=approximate)
            top.replace_all_uses_with(made)
            return 1
        top = only_user(top)
    return 0


def _replace_silu(graph: fx.Graph, node: fx.Node) -> int:
    user = only_user(node)
    if user is None or not calls(user, (aten.mul.Tensor,)):
        return 0
    x = node.args[0]
    if {user.args[0], user.args[1]} != {x, node}:
        return 0
    with graph.inserting_before(user):
        made = insert(graph, user, aten.silu.default, x)
    user.replace_all_uses_with(made)
    return 1
