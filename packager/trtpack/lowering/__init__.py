# SPDX-License-Identifier: Apache-2.0
"""Rewrites a captured graph into what converters and PyTorch segments want, pass by pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trtpack.branches import every_branch
from trtpack.capture import Captured

from .drop_asserts import drop_asserts
from .drop_no_ops import drop_no_ops
from .fold_batch_norm import fold_batch_norm
from .fold_constants import fold_constants
from .graph import Recipes, run_pass
from .inline_sizes import inline_sizes
from .narrow_doubles import narrow_doubles
from .relax_views import relax_views

PASSES = (
    drop_asserts,  # runtime checks keep dead code alive and have no TensorRT form
    inline_sizes,  # a size is an expression; as a node it would cut segments apart
    relax_views,  # the passes below may change strides, which view() cannot stand
    drop_no_ops,  # casts, clones, dropouts and views that change nothing
    fold_batch_norm,  # one layer instead of two; leaves arithmetic over parameters behind
    fold_constants,  # evaluates that arithmetic, and all else that reads no input
    narrow_doubles,  # no TensorRT computes in float64; constants have been evaluated in it
)

WITHIN_BRANCHES = (drop_asserts, inline_sizes)
"""What runs on the graphs of ``torch.cond`` too. Their weights arrive as operands, so there is
nothing to fold, and none may answer what it was given."""


@dataclass(frozen=True)
class Lowered:
    """The lowered graph (placeholders, outputs and names as in ``Captured``).

    ``recipes`` tells, for each constant the passes derived, how it follows from the parameters;
    ``effects`` how many rewrites each pass made, in order.
    """

    captured: Captured
    recipes: Mapping[str, dict[str, Any]]
    effects: Mapping[str, int]


def lower(captured: Captured, *, keep_doubles: bool = False) -> Lowered:
    """Runs every pass once, in order; ``keep_doubles`` leaves float64 as it is.

    Raises:
        CompileError: a pass failed or left an invalid graph; the pass is named.
    """
    recipes: Recipes = {}
    for branch in every_branch(captured.graph_module):
        for rewrite in WITHIN_BRANCHES:
            run_pass(rewrite, branch, recipes)
    passes = [rewrite for rewrite in PASSES if not (keep_doubles and rewrite is narrow_doubles)]
    effects = {
        rewrite.__name__: run_pass(rewrite, captured.graph_module, recipes) for rewrite in passes
    }
    captured.graph_module.meta["recipes"] = recipes
    return Lowered(captured, recipes, effects)
