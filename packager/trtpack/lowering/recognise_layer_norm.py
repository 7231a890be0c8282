# SPDX-License-Identifier: Apache-2.0
"""Finds layer norms written out by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .match import calls, only_user, plain_sum, power, reduced_last_dims
from .norm_patterns import Normal, is_weight, normalised_shape, over_root, replace_norms, weighted

aten = torch.ops.aten


def recognise_layer_norm(graph: fx.Graph) -> int:
    """Replace ``(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`` by ``layer_norm``.

    The variance is the biased one: ``var(x, correction=0)`` or the mean of ``(x - mean(x)) ** 2``.
    The root may be ``sqrt``, ``rsqrt`` or a power; weight and bias may be absent.

    Needs:   statistics over last dims of known size, with kept dims.
    Keeps:   the unbiased variance, an epsilon outside the root, and statistics of other dims.
    Returns: how many it replaced; the runner erases the dead nodes.
    """
    return replace_norms(graph, aten.layer_norm.default, _parts, _affine)


def _parts(node: fx.Node) -> Normal | None:
    """``x``, the normalised sizes and epsilon, of a centred and scaled ``x``."""
    for centred, variance, epsilon in over_root(node):
        if not calls(centred, (aten.sub.Tensor,)) or len(centred.args) > 2:
            continue
        x, mean = centred.args
        dims = _mean_of(mean, x)
        shape = normalised_shape(x, dims) if dims is not None else None
        if shape is not None and dims == _variance_of(variance, x, centred):
            return x, shape, epsilon
    return None


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
    top, weight = weighted(node, shape)
    user = only_user(top)
    operands = plain_sum(user) if weight is not None else None
    for have, other in (operands, operands[::-1]) if operands else ():
        if have is top and is_weight(other, shape, node):
            assert user is not None
            return user, weight, other
    return top, weight, None
