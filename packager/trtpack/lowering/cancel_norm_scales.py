# SPDX-License-Identifier: Apache-2.0
"""Leaves out a scale that fake-quantized training divides by and a batch norm brings back."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from trtpack.capture import constant_of

from .fold_batch_norm import Norm, norm_of
from .graph import insert
from .match import only_user, plain_sum

aten = torch.ops.aten


def cancel_norm_scales(graph: fx.Graph) -> int:
    """Replace ``batch_norm(convolution(x, w) / s + b)`` by the convolution with another bias.

    With ``s = gamma / sqrt(variance + eps)`` of that batch norm. ``ConvBn2d`` and its like quantize
    weights that have ``s`` in them already, as the deployed model will, and divide it out again.
    What is left of both is ``(b - mean) * s + beta``.

    Needs:   the scale written with the batch norm's own parameters, a bias that is a constant.
    Keeps:   results that others read too.
    Returns: how many batch norms it replaced.
    """
    replaced = 0
    for node in list(graph.nodes):
        norm = norm_of(node)
        found = _divided(norm) if norm is not None else None
        if norm is not None and found is not None:
            producer, bias = found
            with graph.inserting_before(producer):
                shift = _shift(graph, norm, producer, bias)
            producer.args = (*producer.args[:2], shift, *producer.args[3:])
            norm.output.replace_all_uses_with(producer)
            replaced += 1
    return replaced


def _divided(norm: Norm) -> tuple[fx.Node, fx.Node | None] | None:
    """The convolution, and the bias behind the division; None for any other batch norm."""
    last, bias = norm.input, None
    if (summed := plain_sum(last)) is not None:
        last, bias = summed
        bias = _flat(bias)
        if constant_of(bias) is None:
            return None
    if last.target is not aten.div.Tensor or only_user(last) is None:
        return None
    producer, scale = last.args
    if not isinstance(producer, fx.Node) or producer.target is not aten.convolution.default:
        return None
    own = _is_scale(_flat(scale), norm) and only_user(producer) is last
    return (producer, bias) if own and only_user(norm.input) is norm.node else None


def _flat(value: Any) -> Any:
    """What was reshaped to meet channels."""
    is_shaped = isinstance(value, fx.Node) and value.target is aten.reshape.default
    return value.args[0] if is_shaped else value


def _is_scale(value: Any, norm: Norm) -> bool:
    """Whether a value is ``gamma / sqrt(variance + eps)``."""
    if not isinstance(value, fx.Node) or value.target is not aten.div.Tensor:
        return False
    gamma, root = value.args
    if not isinstance(root, fx.Node) or root.target is not aten.sqrt.default:
        return False
    summed = plain_sum(root.args[0])
    return gamma is norm.gamma and summed == (norm.variance, norm.epsilon)


def _shift(graph: fx.Graph, norm: Norm, producer: fx.Node, bias: fx.Node | None) -> fx.Node:
    def op(target: Any, *args: Any) -> fx.Node:
        return insert(graph, producer, target, *args)

    root = op(aten.sqrt.default, op(aten.add.Tensor, norm.variance, norm.epsilon))
    shift = op(aten.neg.default, norm.mean)
    if bias is not None:
        shift = op(aten.sub.Tensor, bias, norm.mean)
    shift = op(aten.mul.Tensor, shift, op(aten.div.Tensor, norm.gamma, root))
    for more in (norm.beta, producer.args[2]):
        shift = shift if more is None else op(aten.add.Tensor, shift, more)
    shift.meta["constant_use"] = "bias_bn_folded"
    return shift
