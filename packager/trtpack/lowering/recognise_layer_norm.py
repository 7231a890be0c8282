# SPDX-License-Identifier: Apache-2.0
"""Finds layer norms written out by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .graph import insert
from .match import (
    QUOTIENTS,
    calls,
    number,
    only_user,
    plain_sum,
    power,
    reduced_last_dims,
    sum_with,
)
from .sizes import sizes

aten = torch.ops.aten


def recognise_layer_norm(graph: fx.Graph) -> int:
    """Replace ``(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`` by ``layer_norm``.

    The variance is the biased one: ``var(x, correction=0)`` or the mean of ``(x - mean(x)) ** 2``.
    The root may be ``sqrt``, ``rsqrt`` or a power; weight and bias may be absent.

    Needs:   statistics over last dims of known size, with kept dims.
    Keeps:   the unbiased variance, an epsilon outside the root, and statistics of other dims.
    Returns: how many it replaced; the runner erases the dead nodes.
    """
    found = 0
    for node in list(graph.nodes):
        if not calls(node, (aten.mul.Tensor, *QUOTIENTS)):
            continue
        parts = _parts(node)
        if parts is None:
            continue
        x, dims, epsilon = parts
        normalised = sizes(x.meta["val"].shape[-dims:])
        if not all(isinstance(size, int) for size in normalised):
            continue
        top, weight, bias = _affine(node, normalised)
        with graph.inserting_before(top):
            made = insert(
                graph, top, aten.layer_norm.default, x, list(normalised), weight, bias, epsilon
            )
        top.replace_all_uses_with(made)
        found += 1
    return found


def _parts(node: fx.Node) -> tuple[fx.Node, int, float] | None:
    """``x``, the number of normalised dims and epsilon, of a centred and scaled ``x``."""
    pairs = [(node.args[0], node.args[1])]
    if not calls(node, QUOTIENTS):
        pairs.append(pairs[0][::-1])
    for centred, scale in pairs:
        spread = _spread(scale, inverse=not calls(node, QUOTIENTS))
        if spread is None or not calls(centred, (aten.sub.Tensor,)) or len(centred.args) > 2:  # type: ignore[union-attr]
            continue
        x, mean = centred.args  # type: ignore[union-attr]
        variance, epsilon = spread
        dims = _mean_of(mean, x)
        if dims is not None and dims == _variance_of(variance, x, centred):
            return x, dims, epsilon  # type: ignore[return-value]
    return None


def _spread(node: Any, *, inverse: bool) -> tuple[fx.Node, float] | None:
    """Variance and epsilon of ``rsqrt(variance + eps)``, or ``sqrt`` of it where divided by."""
    root: Any = None
    if calls(node, (aten.rsqrt.default if inverse else aten.sqrt.default,)):
        root = node.args[0]
    elif calls(node, (aten.pow.Tensor_Scalar,)):
        root = node.args[0] if number(node.args[1]) == (-0.5 if inverse else 0.5) else None
    elif calls(node, (aten.reciprocal.default,)) and inverse:
        return _spread(node.args[0], inverse=False)
    return sum_with(root) if root is not None else None


def _mean_of(node: Any, x: Any) -> int | None:
    if not calls(node, (aten.mean.dim,)) or node.args[0] is not x or "dtype" in node.kwargs:
        return None
    return reduced_last_dims(node)


def _variance_of(node: Any, x: Any, centred: Any) -> int | None:
    if calls(node, (aten.var.correction,)):
        unbiased = node.kwargs.get("correction", 1) != 0
        return None if unbiased or node.args[0] is not x else reduced_last_dims(node)
    if calls(node, (aten.var.dim,)):
        return None  # its third argument is the correction, on by default
    if calls(node, (aten.mean.dim,)):
        squared = power(node.args[0], 2)
        if squared is not None and _same_difference(squared, centred):
            return reduced_last_dims(node)
    return None


def _same_difference(a: fx.Node, b: fx.Node) -> bool:
    return a is b or (a.target == b.target and a.args == b.args)


def _affine(node: fx.Node, shape: tuple[int, ...]) -> tuple[fx.Node, Any, Any]:
    """What is left to replace, with the weight and the bias found above the normalised value."""
    top, weight = node, None
    user = only_user(node)
    if user is not None and calls(user, (aten.mul.Tensor,)):
        other = user.args[1] if user.args[0] is node else user.args[0]
        if _fits(other, shape, node):
            top, weight = user, other
    user = only_user(top)
    operands = plain_sum(user) if weight is not None else None
    for have, other in (operands, operands[::-1]) if operands else ():
        if have is top and _fits(other, shape, node):
            assert user is not None
            return user, weight, other
    return top, weight, None


def _fits(value: Any, shape: tuple[int, ...], node: fx.Node) -> bool:
    found = value.meta.get("val") if isinstance(value, fx.Node) else None
    return (
        isinstance(found, torch.Tensor)
        and sizes(found.shape) == shape
        and found.dtype == node.meta["val"].dtype
    )
