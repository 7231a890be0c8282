# SPDX-License-Identifier: Apache-2.0
"""Finds RMS norms written out by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .match import calls, power, reduced_last_dims
from .norm_patterns import Normal, normalised_shape, over_root, replace_norms, weighted

aten = torch.ops.aten


def recognise_rms_norm(graph: fx.Graph) -> int:
    """Replace ``x * rsqrt(mean(x ** 2) + eps) * weight`` by ``rms_norm``.

    The root may be ``sqrt``, ``rsqrt`` or a power; the weight may be absent. Casts around it stay
    what they are, and so does a weight that is multiplied behind one.

    Needs:   a mean in float32 over last dims of known size, with kept dims.
    Keeps:   what is computed in half precision, which rounds at every step, an epsilon outside
             the root, and means of other dims.
    Returns: how many it replaced; the runner erases the dead nodes.
    """
    return replace_norms(graph, aten.rms_norm.default, _parts, weighted)


def _parts(node: fx.Node) -> Normal | None:
    """``x``, the normalised sizes and epsilon, of an ``x`` that is scaled."""
    for x, mean, epsilon in over_root(node):
        if not calls(mean, (aten.mean.dim,)) or "dtype" in mean.kwargs:
            continue
        squared, dims = power(mean.args[0], 2), reduced_last_dims(mean)
        if squared is None or dims is None or not _is(squared, x):
            continue
        shape = normalised_shape(squared, dims)
        types = {n.meta["val"].dtype for n in (squared, mean, node)}
        if shape is not None and types == {torch.float32}:
            return squared, shape, epsilon
    return None


def _is(squared: fx.Node, x: Any) -> bool:
    """Whether ``squared`` is ``x``, or its cast, which a product with float32 does by itself."""
    return squared is x or (calls(squared, (aten._to_copy.default,)) and squared.args[0] is x)
