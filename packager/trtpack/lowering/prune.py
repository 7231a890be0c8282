# SPDX-License-Identifier: Apache-2.0
"""Prunes weights so that sparse tensor cores can skip half of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from trtpack.calibration.places import Weight, places
from trtpack.capture import constant_of
from trtpack.sparsity import GROUP, KEPT, is_sparse, summed_axis

from .fold_constants import fold_constants
from .graph import Recipes, insert

aten = torch.ops.aten


def prune(graph: fx.Graph, recipes: Recipes) -> int:
    """Set the two smallest of every four weights to zero, by magnitude.

    The module's ``meta["prune"]`` asks for it. The groups are those that TensorRT looks at: along
    what a product sums over. Which weights go follows from the weights, so new ones are pruned too.

    Needs:   constants folded: weights are what products really multiply.
    Keeps:   weights that are so already, in groups of channels, or no multiple of four.
    Returns: how many weights it prunes.
    """
    module = graph.owning_module
    assert module is not None
    if not module.meta.get("prune"):
        return 0
    found = places(graph, lambda node: constant_of(node) is not None).weights
    pruned = sum(_prune(graph, weight) for weight in found)
    fold_constants(graph, recipes)
    return pruned


def _prune(graph: fx.Graph, weight: Weight) -> int:
    node, axis = weight.value, summed_axis(weight)
    value = constant_of(node)
    assert value is not None
    if axis is None or value.shape[axis] % GROUP or is_sparse(value, axis):
        return 0

    def op(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return insert(graph, node, target, *args, **kwargs)

    order = [d for d in range(value.dim()) if d != axis % value.dim()] + [axis % value.dim()]
    back = sorted(range(value.dim()), key=order.__getitem__)
    moved = [value.shape[d] for d in order]
    with graph.inserting_before(weight.reader):
        rows = op(aten.permute.default, node, order)
        groups = op(aten.reshape.default, rows, [*moved[:-1], moved[-1] // GROUP, GROUP])
        ranked = op(
            aten.argsort.stable, op(aten.abs.default, groups), stable=True, dim=-1, descending=True
        )
        rank = op(aten.argsort.stable, ranked, stable=True, dim=-1, descending=False)
        kept = op(aten.where.ScalarOther, op(aten.lt.Scalar, rank, KEPT), groups, 0.0)
        result = op(aten.permute.default, op(aten.reshape.default, kept, moved), back)
        result.meta["constant_use"] = "weight_2to4"
        result.meta["constant_owner"] = str(node.target).removesuffix(".weight")
    weight.reader.update_arg(weight.index, result)
    return 1
