# SPDX-License-Identifier: Apache-2.0
"""Rewrites a captured graph into what converters and PyTorch segments want, pass by pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from trtpack.branches import every_branch
from trtpack.calibration.request import Calibrated, Quantization
from trtpack.capture import Captured
from trtpack.precision.plan import PrecisionPlan, Request

from .autocast import autocast, copied, rows
from .cancel_norm_scales import cancel_norm_scales
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
from .prune import prune
from .quantize import quantize
from .recognise_attention import recognise_attention
from .recognise_gelu import recognise_gelu
from .recognise_layer_norm import recognise_layer_norm
from .recognise_quantization import recognise_quantization
from .recognise_rms_norm import recognise_rms_norm
from .recognise_rotary import recognise_rotary
from .relax_views import relax_views

PASSES = (
    drop_asserts,  # runtime checks keep dead code alive and have no TensorRT form
    inline_sizes,  # a size is an expression; as a node it would cut segments apart
    relax_views,  # the passes below may change strides, which view() cannot stand
    drop_no_ops,  # casts, clones, dropouts and views that change nothing
    recognise_quantization,  # before its weights and scales become constants like others
    recognise_gelu,  # written by hand it is eight layers; TensorRT has it as one
    recognise_layer_norm,  # likewise, and TensorRT keeps its statistics in float32
    recognise_rms_norm,  # a layer less, and the operator that reports name
    recognise_rotary,  # one layer from TensorRT 10.15 on, instead of seven or nine
    recognise_attention,  # one fused layer from TensorRT 10.14 on
    cancel_norm_scales,  # what quantized weights of a model in training have in them already
    fold_batch_norm,  # one layer instead of two; leaves arithmetic over parameters behind
    merge_projections,  # one wide product is faster than three; leaves joined weights behind
    fold_constants,  # evaluates that arithmetic, and all else that reads no input
    drop_true_masks,  # masks that constants turned out to be
    fold_scalars,  # chains of scales, ones and zeros
    fold_padding,  # a convolution pads for itself
    merge_views,  # TensorRT moves data once for a chain of them
    merge_common_subexpressions,  # what is written twice, or became equal above
    prune,  # if asked, before anything looks at how large weights are
    quantize,  # post-training, if asked: of constants and values as they will be
    narrow_doubles,  # no TensorRT computes in float64; constants have been evaluated in it
    autocast,  # the precision that was asked for; rules go by whole operators, so it comes last
)

NOT_IN_BRANCHES = (
    recognise_rms_norm, recognise_rotary,  # what runs in PyTorch is taken apart outside only
    cancel_norm_scales, fold_batch_norm, merge_projections, fold_constants,
    prune, quantize, narrow_doubles, autocast,
)  # fmt: skip
"""What does not run on the graphs of ``torch.cond``, where weights arrive as operands."""


NO_PLAN = PrecisionPlan()


@dataclass(frozen=True)
class Lowered:
    """The lowered graph (placeholders, outputs and names as in ``Captured``).

    ``recipes`` tells, for each constant the passes derived, how it follows from the parameters;
    ``effects`` how many rewrites each pass made, in order, those in branches counted in. ``plan``
    tells what every operator computes in; ``uncast`` is the graph before that was changed, None
    where nothing was asked for.
    """

    captured: Captured
    recipes: Mapping[str, dict[str, Any]]
    effects: Mapping[str, int]
    plan: PrecisionPlan = NO_PLAN
    uncast: fx.GraphModule | None = None


def own_graph(captured: Captured) -> Captured:
    """The same with a graph of its own, since lowering changes the one it is given."""
    module = copied(captured.graph_module)
    module.meta |= captured.graph_module.meta
    return replace(captured, graph_module=module)


def lower(
    captured: Captured,
    *,
    keep_doubles: bool = False,
    precision: Request | None = None,
    quantization: Quantization | None = None,
    pruned: bool = False,
    search: Mapping[str, Any] | None = None,
) -> Lowered:
    """Runs every pass once, in order; ``keep_doubles`` leaves float64 as it is, ``precision`` asks
    for other types than the model has, ``quantization`` for numbers of few bits,
    ``pruned`` for weights of which half are zero; ``search`` tells how the precision was found.

    Raises:
        CompileError: a pass failed or left an invalid graph; the pass is named.
    """
    recipes: Recipes = {}
    module = captured.graph_module
    module.meta["recipes"] = recipes
    within = list(every_branch(module))
    if precision is not None:
        module.meta["precision"] = precision
    module.meta["prune"] = pruned
    if quantization is not None:
        module.meta["quantization"] = quantization
    effects = {}
    for rewrite in PASSES:
        if keep_doubles and rewrite is narrow_doubles:
            continue
        graphs = [module] if rewrite in NOT_IN_BRANCHES else [*within, module]
        effects[rewrite.__name__] = sum(run_pass(rewrite, graph, recipes) for graph in graphs)
    for graph in (*within, module):
        graph.recompile()
    made = module.meta.pop("plan", None) or PrecisionPlan(rows=rows(module.graph))
    calibrated: Calibrated | None = module.meta.pop("calibrated", None)
    told = None if calibrated is None else calibrated.to_json()
    made = replace(made, quantization=told, search=search)
    return Lowered(captured, recipes, effects, made, module.meta.pop("uncast", None))
