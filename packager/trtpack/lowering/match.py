# SPDX-License-Identifier: Apache-2.0
"""How passes read a graph: numbers, factors, and results that nothing else reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx

from trtpack.capture import constant_of

aten = torch.ops.aten

PRODUCTS = (aten.mul.Tensor, aten.mul.Scalar)
QUOTIENTS = (aten.div.Tensor, aten.div.Scalar)
SUMS = (aten.add.Tensor, aten.add.Scalar)


@dataclass(frozen=True)
class Product:
    """``number`` times each of ``nodes``."""

    number: float
    nodes: tuple[fx.Node, ...]


def calls(value: object, targets: Iterable[Any]) -> bool:
    """Whether a value is a call of one of these operators."""
    return isinstance(value, fx.Node) and value.op == "call_function" and value.target in targets


def fixed(value: object) -> torch.Tensor | None:
    """A constant that no new weights change; None for parameters, what follows from them, and else.

    A rewrite may depend on what such a constant is now, and on nothing else's value.
    """
    constant = constant_of(value)
    if constant is None:
        return None
    assert isinstance(value, fx.Node)
    module = value.graph.owning_module
    assert module is not None
    learned = value.target in module.meta.get("weights", ()) or value.target in module.meta.get(
        "recipes", ()
    )
    return None if learned else constant


def number(value: object) -> float | None:
    """A Python number, or a fixed constant of one element, as a float; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    constant = fixed(value)
    if constant is None or constant.numel() != 1 or constant.dtype == torch.bool:
        return None
    return float(constant)


def is_near(value: object, wanted: float) -> bool:
    """Whether a number is ``wanted`` as float16 or better would write it down."""
    found = number(value)
    return found is not None and abs(found - wanted) <= 1e-3 * abs(wanted)


def arguments(node: fx.Node) -> dict[str, Any]:
    """A call's arguments by name, in order, defaults filled in."""
    module = node.graph.owning_module
    assert module is not None
    found = node.normalized_arguments(module, normalize_to_only_use_kwargs=True)
    assert found is not None
    return dict(found.kwargs)


def source(node: fx.Node) -> fx.Node:
    """The node that an operator reads first, where its schema wants a tensor there."""
    return cast("fx.Node", node.args[0])


def only_user(node: fx.Node) -> fx.Node | None:
    """The one node that reads this one; None where several do, or the graph answers it."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    return user if user.op == "call_function" else None


def plain_sum(node: object) -> tuple[Any, Any] | None:
    """The two operands of ``a + b``; None where there is a factor, or no sum."""
    if not calls(node, SUMS):
        return None
    assert isinstance(node, fx.Node)
    alpha = node.args[2] if len(node.args) > 2 else node.kwargs.get("alpha", 1)
    return (node.args[0], node.args[1]) if alpha == 1 else None


def sum_with(node: object, wanted: float | None = None) -> tuple[fx.Node, float] | None:
    """``x`` and the number of ``x + number``, whichever comes first."""
    operands = plain_sum(node)
    for x, other in (operands, operands[::-1]) if operands else ():
        found = number(other)
        if isinstance(x, fx.Node) and found is not None and wanted in (None, found):
            return x, found
    return None


def product(node: fx.Node, *, inner: bool = True) -> Product:
    """A tree of products and divisions by numbers, flattened.

    Only results that one node reads are taken apart (the topmost always is, unless ``inner`` is
    False for a node that others read too).
    """
    if calls(node, (aten.neg.default,)) and inner:
        below = product(source(node), inner=_private(source(node)))
        return Product(-below.number, below.nodes)
    if not inner or not calls(node, (*PRODUCTS, *QUOTIENTS)):
        return Product(1.0, (node,))
    divided = node.target in QUOTIENTS
    total = 1.0
    nodes: list[fx.Node] = []
    for position, operand in enumerate(node.args[:2]):
        found = number(operand)
        if divided and position == 1:
            if not found:
                return Product(1.0, (node,))
            total /= found
        elif found is not None:
            total *= found
        else:
            assert isinstance(operand, fx.Node)
            below = product(operand, inner=_private(operand))
            total *= below.number
            nodes += below.nodes
    return Product(total, tuple(nodes))


def _private(node: object) -> bool:
    return isinstance(node, fx.Node) and len(node.users) == 1


def power(node: object, exponent: float) -> fx.Node | None:
    """``x`` of ``x ** exponent``, a whole exponent also written as a product."""
    if calls(node, (aten.pow.Tensor_Scalar,)):
        assert isinstance(node, fx.Node)
        return source(node) if number(node.args[1]) == exponent else None
    if calls(node, (aten.square.default,)) and exponent == 2:
        assert isinstance(node, fx.Node)
        return source(node)
    if calls(node, PRODUCTS) and exponent in (2, 3):
        assert isinstance(node, fx.Node)
        found = product(node)
        if found.number == 1 and len(found.nodes) == exponent and len(set(found.nodes)) == 1:
            return found.nodes[0]
    return None


def reduced_last_dims(node: fx.Node) -> int | None:
    """Over how many last dims a reduction with kept dims goes; None where it goes over others."""
    axes = node.args[1] if len(node.args) > 1 else None
    keeps = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    rank = source(node).meta["val"].dim()
    if not isinstance(axes, list | tuple) or not keeps or not axes:
        return None
    wanted = list(range(rank - len(axes), rank))
    return len(axes) if sorted(int(a) % rank for a in axes) == wanted else None
