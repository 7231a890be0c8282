# SPDX-License-Identifier: Apache-2.0
"""What hand-written layer norms and RMS norms have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from .graph import insert
from .match import QUOTIENTS, calls, number, only_user, sum_with
from .sizes import sizes

aten = torch.ops.aten

Normal = tuple[fx.Node, tuple[int, ...], float]
"""What is normalised, the sizes it is normalised over, and epsilon."""

_NORMALS = (aten.mul.Tensor, *QUOTIENTS)


def replace_norms(
    graph: fx.Graph,
    operator: Any,
    parts: Callable[[fx.Node], Normal | None],
    weights: Callable[[fx.Node, tuple[int, ...]], tuple[Any, ...]],
) -> int:
    """Puts ``operator`` in place of what ``parts`` finds; answers how often.

    ``weights`` gives the topmost node that is replaced, and the weights found up to it.
    """
    found = 0
    for node in list(graph.nodes):
        normal = parts(node) if calls(node, _NORMALS) else None
        if normal is None:
            continue
        x, shape, epsilon = normal
        top, *given = weights(node, shape)
        with graph.inserting_before(top):
            made = insert(graph, top, operator, x, list(shape), *given, epsilon)
        top.replace_all_uses_with(made)
        found += 1
    return found


def over_root(node: fx.Node) -> Iterator[tuple[Any, fx.Node, float]]:
    """What is divided by ``sqrt(spread + epsilon)``, with ``spread`` and ``epsilon``.

    The root may be ``sqrt``, ``rsqrt`` or a power. A product of two roots has two answers.
    """
    divided = calls(node, QUOTIENTS)
    pairs = [(node.args[0], node.args[1])]
    if not divided:
        pairs.append(pairs[0][::-1])
    for x, scale in pairs:
        found = _under_root(scale, inverse=not divided)
        if found is not None:
            yield x, *found


def _under_root(node: Any, *, inverse: bool) -> tuple[fx.Node, float] | None:
    root: Any = None
    if calls(node, (aten.rsqrt.default if inverse else aten.sqrt.default,)):
        root = node.args[0]
    elif calls(node, (aten.pow.Tensor_Scalar,)):
        root = node.args[0] if number(node.args[1]) == (-0.5 if inverse else 0.5) else None
    elif calls(node, (aten.reciprocal.default,)) and inverse:
        return _under_root(node.args[0], inverse=False)
    return sum_with(root) if root is not None else None


def normalised_shape(x: fx.Node, dims: int) -> tuple[int, ...] | None:
    """The sizes of the last ``dims`` dims; None where one varies."""
    found = sizes(x.meta["val"].shape[-dims:])
    return found if all(isinstance(size, int) for size in found) else None


def weighted(node: fx.Node, shape: tuple[int, ...]) -> tuple[fx.Node, Any]:
    """The product of a normalised value with a weight, and the weight; the value and None else."""
    user = only_user(node)
    if user is not None and calls(user, (aten.mul.Tensor,)):
        other = user.args[1] if user.args[0] is node else user.args[0]
        if is_weight(other, shape, node):
            return user, other
    return node, None


def is_weight(value: Any, shape: tuple[int, ...], node: fx.Node) -> bool:
    """Whether a value has the normalised shape and the type of ``node``."""
    found = value.meta.get("val") if isinstance(value, fx.Node) else None
    return (
        isinstance(found, torch.Tensor)
        and sizes(found.shape) == shape
        and found.dtype == node.meta["val"].dtype
    )
