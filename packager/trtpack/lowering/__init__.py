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
from .drop_true_masks import drop_true_masks
from .fold_batch_norm import fold_batch_norm
from .fold_constants import fold_constants
from .fold_padding import fold_padding
from .fold_scalars import fold_scalars
from .graph import Recipes, run_pass
from .inline_sizes import inline_sizes
from .merge_common_subexpressions import merge_common_subexpressions
from .merge_projections import merge_projections
from .merge_views import merge_views
from .narrow_doubles import narrow_doubles
from .recognise_attention import recognise_attention
from .recognise_gelu import recognise_gelu
from .recognise_layer_norm import recognise_layer_norm
from .recognise_rms_norm import recognise_rms_norm
from .recognise_rotary import recognise_rotary
from .relax_views import relax_views

PASSES = (
    drop_asserts,  # runtime checks keep dead code alive and have no TensorRT form
    inline_sizes,  # a size is an expression; as a node it would cut segments apart
    relax_views,  # the passes below may change strides, which view() cannot stand
    drop_no_ops,  # casts, clones, dropouts and views that change nothing
    recognise_gelu,  # written by hand it is eight layers; TensorRT has it as one
    recognise_layer_norm,  # likewise, and TensorRT keeps its statistics in float32
    recognise_rms_norm,  # a layer less, and the operator that reports name
    recognise_rotary,  # one layer from TensorRT 10.15 on, instead of seven or nine
    recognise_attention,  # one fused layer from TensorRT 10.14 on
    fold_batch_norm,  # one layer instead of two; leaves arithmetic over parameters behind
    merge_projections,  # one wide product is faster than three; leaves joined weights behind
    fold_constants,  # evaluates that arithmetic, and all else that reads no input
    drop_true_masks,  # masks that constants turned out to be
    fold_scalars,  # chains of scales, ones and zeros
    fold_padding,  # a convolution pads for itself
    merge_views,  # TensorRT moves data once for a chain of them
    merge_common_subexpressions,  # what is written twice, or became equal above
    narrow_doubles,  # no TensorRT computes in float64; constants have been evaluated in it
)

NOT_IN_BRANCHES = (
    recognise_rms_norm, recognise_rotary,  # what runs in PyTorch is taken apart outside only
    fold_batch_norm, merge_projections, fold_constants, narrow_doubles,
)  # fmt: skip
"""What does not run on the graphs of ``torch.cond``, where weights arrive as operands."""


@dataclass(frozen=True)
class Lowered:
    """The lowered graph (placeholders, outputs and names as in ``Captured``).

    ``recipes`` tells, for each constant the passes derived, how it follows from the parameters;
    ``effects`` how many rewrites each pass made, in order, those in branches counted in.
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
    module = captured.graph_module
    module.meta["recipes"] = recipes
    within = list(every_branch(module))
    effects = {}
    for rewrite in PASSES:
        if keep_doubles and rewrite is narrow_doubles:
            continue
        graphs = [module] if rewrite in NOT_IN_BRANCHES else [*within, module]
        effects[rewrite.__name__] = sum(run_pass(rewrite, graph, recipes) for graph in graphs)
    for graph in (*within, module):
        graph.recompile()
    return Lowered(captured, recipes, effects)
